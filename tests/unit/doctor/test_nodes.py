"""Doctor: MultiChain nodes and their ports, on recorded /proc."""

from __future__ import annotations

import socket

import pytest

from mcencrypt.doctor.finding import Severity
from mcencrypt.doctor.nodes import check_nodes
from mcencrypt.nodes.processes import tcp_sockets
from tests.helpers.recorded_machine import PORTS, TCP, Recorded, by_id, case, status, worst
from tests.helpers.recorded_nodes import PARAMS, PID, Node, row


def test_sockets_of_proc() -> None:
    node = Node()
    node.six += row(("10.0.0.1", 40000), ("10.0.0.2", 7331), 1, "4", six=True)
    node.publish()
    found = tcp_sockets(node.machine, PID)
    assert [(one.local, one.lport, one.ipv6) for one in found[:3]] == [
        ("0.0.0.0", 7331, False), ("0.0.0.0", 7330, False), ("::", 7331, True)
    ]  # fmt: skip
    assert (found[3].local, found[3].remote, found[3].rport) == ("10.0.0.1", "10.0.0.2", 7331)
    assert socket.inet_pton(socket.AF_INET6, found[2].local) == bytes(16)


def test_a_node_on_a_taken_port_of_both_families() -> None:
    found = list(check_nodes(case(Node().machine, status())))
    assert by_id(found, "nodes.port").text == "multichaind chain1 (pid 500) uses port 7331, on IPv6 too"
    assert by_id(found, "ports.silent").text == "nobody listens on port 8571"
    assert worst(found) is Severity.NOTE


@pytest.mark.parametrize("how", ["-port=9555", "multichain.conf", "params.dat"])
def test_a_node_on_a_port_that_is_not_taken(how: str) -> None:
    node = Node(*([how] if how.startswith("-") else []))
    base = f"/proc/{PID}/root/root/.multichain/chain1"
    if how == "multichain.conf":
        node.machine.files[f"{base}/multichain.conf"] = "port=9555\n"
    elif how == "params.dat":
        node.machine.files[f"{base}/params.dat"] = PARAMS.replace("7331", "9555")
    node.four = row(("0.0.0.0", 9555), ("0.0.0.0", 0), 10, "1")
    node.six = ""
    node.publish()
    found = by_id(list(check_nodes(case(node.machine, status()))), "nodes.port-not-taken")
    assert found.severity is Severity.PROBLEM and "on port 9555" in found.text
    assert "add 9555 to ports, or 'chain1' to chains" in found.advice


def test_a_port_that_this_node_does_not_use_although_its_chain_does() -> None:
    """-port=7331 on this node; params.dat's other port belongs to peers."""
    node = Node("-port=7331")
    node.machine.files[f"/proc/{PID}/root/root/.multichain/chain1/params.dat"] = PARAMS.replace("7331", "9555")
    assert worst(list(check_nodes(case(node.machine, status())))) is Severity.NOTE


def test_the_rpc_port_is_not_for_encryption() -> None:
    found = list(check_nodes(case(Node().machine, status(ports=[7330, 7331]))))
    assert by_id(found, "nodes.rpc-taken").severity is Severity.PROBLEM


def test_a_connection_with_a_peer_on_a_port_that_is_not_taken() -> None:
    node = Node()
    node.four += row(("10.0.0.1", 40000), ("10.0.0.9", 9555), 1, "4")
    node.four += row(("127.0.0.1", 40001), ("127.0.0.1", 5432), 1, "4")
    node.four += row(("10.0.0.1", 7330), ("10.0.0.7", 51000), 1, "4")
    node.publish()
    found = by_id(list(check_nodes(case(node.machine, status()))), "nodes.connection-outside")
    assert found.severity is Severity.PROBLEM and "10.0.0.9:9555" in found.text


def test_a_node_that_joins_at_a_seed_has_a_chain_and_its_api_is_not_for_encryption() -> None:
    node = Node("-daemon")
    words = ("multichaind", "chain1@seed.example:30447", "-daemon")
    node.machine.files[f"/proc/{PID}/cmdline"] = "".join(f"{word}\0" for word in words)
    node.four += row(("10.0.0.1", 40000), ("10.0.0.9", 30447), 2, "4")
    node.publish()
    found = list(check_nodes(case(node.machine, status())))
    assert by_id(found, "nodes.port").text == "multichaind chain1 (pid 500) uses port 7331, on IPv6 too"
    assert not any("7330" in one.text + one.advice for one in found)
    dials = by_id(found, "nodes.dials-outside")
    assert "dials 10.0.0.9:30447, as its command line says; port 30447 is not among" in dials.text
    assert dials.severity is Severity.PROBLEM and "add 30447 to ports" in dials.advice


def test_a_peer_that_dialled_a_port_that_is_not_taken_is_not_named_by_its_own() -> None:
    node = Node("-port=9555")
    node.four = row(("0.0.0.0", 9555), ("0.0.0.0", 0), 10, "1")
    node.four += row(("10.0.0.1", 9555), ("10.0.0.9", 51000), 1, "4")
    node.six = ""
    node.publish()
    found = list(check_nodes(case(node.machine, status())))
    assert by_id(found, "nodes.port-not-taken") and not any("51000" in one.advice for one in found)


def test_a_sidecar_on_another_port_than_the_node() -> None:
    machine = Recorded()
    machine.add_process(1, "sh", "sh", "/usr/local/bin/mcencrypt-entrypoint", sockets=())
    machine.files["/proc/thread-self/net/tcp"] = TCP + row(("0.0.0.0", 7447), ("0.0.0.0", 0), 10, "81")
    found = by_id(list(check_nodes(case(machine, status()))), "nodes.uncovered")
    assert "listens on port 7447, and nobody on 7331, 8571" in found.text and "add 7447 to ports" in found.advice


def test_what_the_daemon_has_seen_and_this_user_may_not() -> None:
    told = status(uncovered=[
        {"doing": "listens", "port": 7447, "peer": None, "owner": None, "sure": True},
        {"doing": "connected", "port": 9, "peer": "10.0.0.9:9", "owner": None, "sure": False},
    ])  # fmt: skip
    found = list(check_nodes(case(Recorded(), told)))
    assert by_id(found, "nodes.uncovered").severity is Severity.PROBLEM
    assert by_id(found, "nodes.uncovered-unsure").severity is Severity.NOTE


def test_a_node_in_a_container() -> None:
    node = Node(netns="net:[4026532999]")
    found = list(check_nodes(case(node.machine, status())))
    elsewhere = by_id(found, "nodes.elsewhere")
    assert elsewhere.severity is Severity.PROBLEM and f"--netns {PID}" in elsewhere.advice
    assert by_id(found, "nodes.all-elsewhere").severity is Severity.PROBLEM


def test_a_node_in_a_container_that_has_a_sidecar_is_no_problem() -> None:
    node = Node(netns="net:[4026532999]")
    node.machine.add_process(
        900, "mcencrypt", "/opt/bin/python", "/opt/bin/mcencrypt", "daemon", netns="net:[4026532999]"
    )
    found = list(check_nodes(case(node.machine, status())))
    assert "with a mcencrypt of its own" in by_id(found, "nodes.served").text and worst(found) is Severity.NOTE
    assert not any(one.id in ("nodes.elsewhere", "nodes.all-elsewhere") for one in found)
    # one that only looks is none
    node.machine.files["/proc/900/cmdline"] = "/opt/bin/mcencrypt\0status\0"
    assert worst(list(check_nodes(case(node.machine, status())))) is Severity.PROBLEM


def test_no_node_at_all() -> None:
    found = list(check_nodes(case(Recorded(), status())))
    assert by_id(found, "nodes.none").severity is Severity.NOTE
    assert sum(one.id == "ports.silent" for one in found) == len(PORTS)


def test_another_program_on_the_port() -> None:
    machine = Recorded()
    machine.add_process(600, "haproxy", "haproxy", "-f", "x", sockets=("77",))
    machine.files["/proc/thread-self/net/tcp"] = TCP + row(("0.0.0.0", 7331), ("0.0.0.0", 0), 10, "77")
    found = by_id(list(check_nodes(case(machine, status()))), "ports.other-program")
    assert "haproxy (pid 600)" in found.text


def test_a_node_whose_sockets_may_not_be_seen() -> None:
    node = Node("-port=9555")
    for path in [one for one in node.machine.targets if one.startswith(f"/proc/{PID}/fd")]:
        del node.machine.targets[path]
    found = list(check_nodes(case(node.machine, status())))
    assert by_id(found, "nodes.unseen").severity is Severity.NOTE
    assert by_id(found, "nodes.port-not-taken").severity is Severity.PROBLEM
