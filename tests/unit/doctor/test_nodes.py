"""Doctor: MultiChain nodes and their ports, on recorded /proc."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import pytest

from mcencrypt.doctor.finding import Severity
from mcencrypt.doctor.nodes import check_nodes
from mcencrypt.doctor.processes import tcp_sockets
from tests.helpers.recorded_machine import PORTS, TCP, Recorded, by_id, case, status, worst

PID = 500
PARAMS = "default-network-port = 7331   # Default TCP/IP port\ndefault-rpc-port = 7330\n"


def endpoint(address: str, port: int, six: bool) -> str:
    packed = ip_address(address).packed
    if six and len(packed) == 4:
        packed = bytes(10) + b"\xff\xff" + packed
    words = (int.from_bytes(packed[at : at + 4], "little") for at in range(0, len(packed), 4))
    return "".join(f"{word:08X}" for word in words) + f":{port:04X}"


def row(local: tuple[str, int], remote: tuple[str, int], state: int, inode: str, six: bool = False) -> str:
    return (
        f"   0: {endpoint(*local, six)} {endpoint(*remote, six)} {state:02X} 00000000:00000000 00:00000000 00000000"
        f"     0        0 {inode} 1 0000000000000000 100 0 0 10 0\n"
    )


class Node:
    """A multichaind on a recorded machine: listens for peers on 7331 of both families and for RPC on 7330."""

    def __init__(self, *words: str, netns: str = "net:[4026531840]") -> None:
        self.machine = Recorded()
        words = ("multichaind", "chain1", *words)
        self.machine.add_process(PID, "multichaind", *words, netns=netns, sockets=("1", "2", "3", "4"))
        self.machine.files[f"/proc/{PID}/status"] = "Name:\tmultichaind\nUid:\t0\t0\t0\t0\n"
        self.machine.files[f"/proc/{PID}/root/root/.multichain/chain1/params.dat"] = PARAMS
        self.four = row(("0.0.0.0", 7331), ("0.0.0.0", 0), 10, "1") + row(("0.0.0.0", 7330), ("0.0.0.0", 0), 10, "3")
        self.six = row(("::", 7331), ("::", 0), 10, "2", six=True)
        self.publish()

    def publish(self) -> None:
        for name in (str(PID), "thread-self"):
            self.machine.files[f"/proc/{name}/net/tcp"] = TCP + self.four
            self.machine.files[f"/proc/{name}/net/tcp6"] = TCP + self.six


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


def test_a_node_in_a_container() -> None:
    node = Node(netns="net:[4026532999]")
    found = list(check_nodes(case(node.machine, status())))
    elsewhere = by_id(found, "nodes.elsewhere")
    assert elsewhere.severity is Severity.PROBLEM and f"--netns {PID}" in elsewhere.advice
    assert by_id(found, "nodes.all-elsewhere").severity is Severity.PROBLEM


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
