"""Sockets of MultiChain on ports that no rule covers, on recorded /proc."""

from __future__ import annotations

from mcencrypt.nodes.processes import tcp_sockets
from mcencrypt.nodes.sight import Uncovered, find_nodes, look, uncovered
from tests.helpers.recorded_machine import TCP, Recorded
from tests.helpers.recorded_nodes import PID, Node, row

LISTEN, ESTABLISHED, SYN_SENT = 10, 1, 2
ANY = ("0.0.0.0", 0)


def seen(machine: Recorded, ports: tuple[int, ...], others: tuple[int, ...] = ()) -> list[Uncovered]:
    sockets = tcp_sockets(machine)
    return [one for sight in look(machine, sockets, ports) if sight for one in uncovered(sockets, sight, ports, others)]


def sidecar(*rows: str) -> Recorded:
    """A container whose only processes are ours, in the network of another container."""
    machine = Recorded()
    machine.add_process(1, "sh", "sh", "/usr/local/bin/mcencrypt-entrypoint", sockets=())
    machine.files["/proc/thread-self/net/tcp"] = TCP + "".join(rows)
    return machine


P2P = row(("0.0.0.0", 7447), ANY, LISTEN, "81")
API = row(("0.0.0.0", 8000), ANY, LISTEN, "82")


def test_a_node_on_another_port() -> None:
    found = seen(Node("-port=7331").machine, (7447,))
    assert found == [Uncovered("listens", 7331, "", "multichaind chain1 (pid 500)", True)]
    assert found[0].described == "multichaind chain1 (pid 500) listens on port 7331"
    assert seen(Node("-port=7331").machine, (7331,)) == [], "7330 is its API's"
    assert seen(Node("-port=7331").machine, (7447,), others=(7331,)) == []


def test_a_node_whose_p2p_port_is_named_nowhere() -> None:
    node = Node()
    node.machine.files = {name: text for name, text in node.machine.files.items() if "params.dat" not in name}
    assert {one.port for one in seen(node.machine, (7447,))} == {7330, 7331}
    assert seen(node.machine, (7331,)) == [], "the other one is the API's"


def test_a_node_that_dials_a_peer_on_another_port() -> None:
    node = Node()
    node.four += row(("10.0.0.1", 40000), ("10.0.0.9", 30447), SYN_SENT, "4")
    node.four += row(("10.0.0.1", 7331), ("10.0.0.8", 51000), ESTABLISHED, "4")
    node.four += row(("10.0.0.1", 7330), ("10.0.0.7", 51001), ESTABLISHED, "4")
    node.four += row(("127.0.0.1", 40001), ("127.0.0.1", 5432), ESTABLISHED, "4")
    node.publish()
    [one] = seen(node.machine, (7331,))
    assert one == Uncovered("dials", 30447, "10.0.0.9:30447", "multichaind chain1 (pid 500)", True)
    assert seen(node.machine, (7331, 30447)) == []


def test_a_sidecar_on_a_port_where_nobody_listens() -> None:
    found = seen(sidecar(P2P, API), (7331,))
    assert [(one.port, one.owner, one.sure) for one in found] == [(7447, "", True), (8000, "", True)]
    assert seen(sidecar(P2P, API), (7447,)) == [], "the other one is the API's"
    assert [one.port for one in seen(sidecar(P2P, API), (7331,), others=(8000,))] == [7447]


def test_a_sidecar_sees_connections_whose_owner_it_does_not_see() -> None:
    out = row(("10.0.0.1", 40000), ("10.0.0.9", 30447), ESTABLISHED, "83")
    [one] = seen(sidecar(P2P, API, out), (7447,))
    assert (one.doing, one.peer, one.sure) == ("connected", "10.0.0.9:30447", False), "it may be anybody's"
    assert one.described == "a program that cannot be seen from here is connected with 10.0.0.9:30447"
    into = row(("10.0.0.1", 8000), ("10.0.0.9", 51000), ESTABLISHED, "84")
    assert seen(sidecar(P2P, API, into), (7447,)) == [], "a client of the API"


def test_other_programs_that_can_be_seen_are_none_of_ours() -> None:
    machine = sidecar(row(("0.0.0.0", 22), ANY, LISTEN, "22"), row(("127.0.0.11", 41000), ANY, LISTEN, "0"))
    machine.add_process(22, "sshd", "sshd", sockets=("22",))
    assert seen(machine, (7331,)) == []


def test_where_processes_cannot_be_looked_into_nobody_is_suspected() -> None:
    ssh = row(("0.0.0.0", 22), ANY, LISTEN, "22")
    hidden = Recorded()  # process 1 is not seen: ProtectProc, hidepid
    hidden.files["/proc/thread-self/net/tcp"] = TCP + ssh
    assert seen(hidden, (7331,)) == []
    forbidden = sidecar(ssh)
    forbidden.add_process(22, "sshd", "sshd", sockets=None)
    assert seen(forbidden, (7331,)) == []


def test_a_node_that_cannot_be_looked_into_is_known_by_its_command_line() -> None:
    node = Node("-port=9555")
    node.four += row(("0.0.0.0", 9555), ANY, LISTEN, "9")
    node.publish()
    for path in [one for one in node.machine.targets if one.startswith(f"/proc/{PID}/")]:
        del node.machine.targets[path]
    [one] = seen(node.machine, (7331,))
    assert (one.port, one.owner) == (9555, "multichaind chain1 (pid 500)")
    node.machine.files[f"/proc/{PID}/cgroup"] = "0::/system.slice/docker-0a1b.scope\n"
    assert seen(node.machine, (7331,)) == [], "it has a network of its own"


def test_nodes_of_other_networks_are_not_looked_at() -> None:
    assert find_nodes(Node(netns="net:[4026532999]").machine) == []
    assert [node.chain for node in find_nodes(Node().machine)] == ["chain1"]
    assert find_nodes(Recorded()) == []
