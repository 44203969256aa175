"""What of MultiChain passes by here unencrypted: sockets on ports that no rule covers.

Two cases. Where the processes of this network namespace can be seen, a multichaind's own sockets say it. Where only our
own can (a sidecar has the node's network, and not its processes), a socket whose owner is nowhere to be seen is another
container's: if nobody listens on the ports and such a one listens elsewhere, the ports are most likely wrong.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from mcencrypt.nodes.node import Node, in_container, is_node, read_node
from mcencrypt.nodes.processes import (
    ESTABLISHED,
    LISTEN,
    SYN_SENT,
    Files,
    TcpSocket,
    own_netns,
    read_process,
    socket_inodes,
    tcp_sockets,
)

#: What a socket does: waits for peers, dials one, or is connected with one.
Doing = Literal["listens", "dials", "connected"]

#: Ports that are named at most; more of them say nothing more.
SHOWN = 20
#: Processes that are looked at between two pauses.
_AT_ONCE = 8


class Uncovered(NamedTuple):
    """A socket on a port that no rule covers."""

    doing: Doing
    #: The port that would have to be among the ports: where it listens, or the peer's.
    port: int
    #: The peer, ADDRESS:PORT or [ADDRESS]:PORT; "" for who listens.
    peer: str
    #: Whose it is, in words; "" if that cannot be seen.
    owner: str
    #: Whether it is MultiChain's beyond reasonable doubt.
    sure: bool

    @property
    def described(self) -> str:
        """In words."""
        who = self.owner or "a program that cannot be seen from here"
        if self.doing == "listens":
            return f"{who} listens on port {self.port}"
        what = "dials" if self.doing == "dials" else "is connected with"
        return f"{who} {what} {self.peer}"


@dataclass
class Sight:
    """What one look at the processes of this network namespace has shown."""

    #: Those that are here, or may be.
    nodes: list[Node] = field(default_factory=list)
    #: Inodes of the sockets of all processes that could be seen.
    owned: set[str] = field(default_factory=set)
    #: Whether there are processes here whose sockets cannot be seen.
    blind: bool = False


def look(files: Files, sockets: Sequence[TcpSocket], ports: Collection[int]) -> Iterator[Sight | None]:
    """Look at all processes, a few at a time: None for each pause, and at last what was seen.

    `sockets`: those of this namespace that listen, dial or are connected. Raises OSError if there is no /proc.
    """
    seen, here = Sight(), own_netns(files)
    others: list[int] = []
    for count, pid in enumerate(sorted(int(name) for name in files.names("/proc") if name.isdigit())):
        if count % _AT_ONCE == _AT_ONCE - 1:
            yield None
        process = read_process(files, pid)
        if process is None or not process.words[0]:
            continue  # it has ended; or it is the kernel's own
        if process.netns and here and process.netns != here:
            continue
        if not is_node(process):
            others.append(pid)
        elif process.netns or not in_container(files, pid):
            seen.nodes.append(node := read_node(files, process, sockets))
            if node.sockets is None:
                _guess(node, sockets)
            seen.owned |= {one.inode for one in node.sockets or ()}
    if seen.nodes or not list(_strangers(sockets, seen.owned, ports)):
        seen.blind = True  # nothing is left to be told, or it would not be believed
    else:
        for count, pid in enumerate(others):
            if count % _AT_ONCE == _AT_ONCE - 1:
                yield None
            inodes = socket_inodes(files, pid)
            if inodes is None:
                seen.blind = True
                break
            seen.owned |= inodes
        # process 1 is everybody's: who cannot see it does not see others either (hidepid)
        seen.blind |= socket_inodes(files, 1) is None
    yield seen


def find_nodes(files: Files) -> list[Node]:
    """The nodes of this network namespace, all at once. None if there is no /proc."""
    try:
        return [node for seen in look(files, tcp_sockets(files), ()) if seen for node in seen.nodes]
    except OSError:
        return []


def uncovered(
    sockets: Iterable[TcpSocket], seen: Sight, ports: Collection[int], others: Collection[int] = ()
) -> list[Uncovered]:
    """The sockets of MultiChain that no rule for `ports` covers, sure ones first. `others`: ports of other programs."""
    found: dict[tuple[Doing, int, str], Uncovered] = {}
    for node in seen.nodes:
        for one in _of_node(node, ports, others):
            found.setdefault((one.doing, one.port, one.owner), one)
    if not seen.blind:
        for one in _of_nobody(list(sockets), seen.owned, ports, others):
            found.setdefault((one.doing, one.port, one.owner), one)
    return sorted(found.values(), key=lambda one: not one.sure)[:SHOWN]


def _of_node(node: Node, ports: Collection[int], others: Collection[int]) -> Iterator[Uncovered]:
    for port in sorted(node.sure_ports(ports) - {*ports, *others}):
        yield Uncovered("listens", port, "", node.named, True)
    here = {one.lport for one in node.sockets or () if one.state == LISTEN} | node.rpc
    for one in node.sockets or ():
        if _outside(one, ports) and one.lport not in here and one.rport not in others:
            yield _going_out(one, node.named, True)


def _strangers(sockets: Iterable[TcpSocket], owned: Collection[str], ports: Collection[int]) -> Iterator[TcpSocket]:
    """Sockets of nobody that can be seen, on other ports than these."""
    for one in sockets:
        if one.inode not in owned and (_outside(one, ports) or (one.state == LISTEN and _listens(one, ports))):
            yield one


def _of_nobody(
    sockets: Sequence[TcpSocket], owned: Collection[str], ports: Collection[int], others: Collection[int]
) -> Iterator[Uncovered]:
    listened = {one.lport for one in sockets if one.state == LISTEN}
    # who listens on one of the ports has its API on another
    missing = not listened & set(ports)
    for one in _strangers(sockets, owned, ports):
        if one.state == LISTEN:
            if missing and one.lport not in others:
                yield Uncovered("listens", one.lport, "", "", True)
        elif one.lport not in listened and one.rport not in others:
            yield _going_out(one, "", False)


def _outside(one: TcpSocket, ports: Collection[int]) -> bool:
    connected = one.state in (ESTABLISHED, SYN_SENT)
    return connected and not one.loopback and one.lport not in ports and one.rport not in ports


def _listens(one: TcpSocket, ports: Collection[int]) -> bool:
    return not one.loopback and one.lport not in ports


def _going_out(one: TcpSocket, owner: str, sure: bool) -> Uncovered:
    peer = f"[{one.remote}]:{one.rport}" if ":" in one.remote else f"{one.remote}:{one.rport}"
    return Uncovered("connected" if one.state == ESTABLISHED else "dials", one.rport, peer, owner, sure)


def _guess(node: Node, sockets: Iterable[TcpSocket]) -> None:
    """Whose sockets are whose cannot be seen: on a port that its arguments name listens a node, if anybody does."""
    node.sockets = [one for one in sockets if one.state == LISTEN and one.lport in node.p2p]
