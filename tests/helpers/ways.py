"""Ways between two nodes on which TCP is ended, cut, renumbered, or robbed of what its SYNs carry.

Each can lose packets, and can be ended and begun anew.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal

from lab import Host, Pair, interrupted_pair, two_hosts
from lab.behaviours import Chain, Drop, Join, Split
from lab.hostile.frames import Renumbered
from lab.middlebox import TO_A, TO_B, Behaviour, Frames, Middlebox
from lab.packets import RST, SYN, TcpFrame, parse
from lab.relays import ROOTLESS, Leg
from tests.helpers.nodes import PORT, Node
from tests.helpers.pairs import encrypted
from tests.helpers.relays import RELAYS, TUNNELS, absent, start_relay

#: Of the hosts: each packet is lost, or not, by itself.
SINGLES: Final = {"tso": False, "gso": False, "gro": False}


@dataclass
class Way:
    """Two nodes; a dials b at `entrance`."""

    a: Node
    b: Node
    entrance: str
    #: Where to look at what passes: hosts, and interfaces of theirs.
    legs: list[tuple[Host, str]]
    #: How handshakes travel.
    carrier: str
    #: Lose that share of the packets from now on.
    lose: Callable[[float], None]
    #: End what is in between, and begin it anew.
    end: Callable[[], None]
    begin: Callable[[], None]
    #: Whether connections end with it.
    ends: bool = True
    #: Whether b hears of that: at once, when it has begun anew, or never, as with plain TCP.
    heard: Literal["at once", "then", "never"] = "at once"


@contextlib.contextmanager
def through_a_relay(kind: str) -> Iterator[Way]:
    """A program on a host between them."""
    with two_hosts(nat=False, **SINGLES) as net, encrypted(net, b={"relayed": [net.router.address(4, "b")]}) as pair:
        entrance = net.router.address(4, "a")

        def begin() -> None:
            relays[:] = [start_relay(kind, net.router, Leg(entrance, PORT), Leg(net.b.v4, PORT))]

        def end() -> None:
            relays[0].kill()

        relays: list[Any] = []
        begin()
        legs: list[tuple[Host, str]] = [(net.router, "a"), (net.router, "b")]
        lose = _losing(*legs, (net.a, "eth0"), (net.b, "eth0"))
        yield Way(pair.a, pair.b, entrance, legs, "stream", lose, end, begin)


@contextlib.contextmanager
def into_a_container(kind: str) -> Iterator[Way]:
    """b is behind the network of rootless containers."""
    with two_hosts(nat=False, **SINGLES) as net:
        host, inside = net.b, net.lab.host("inside")

        def begin() -> None:
            running[:] = [ROOTLESS[kind](host, inside, PORT)]

        def end() -> None:
            running[0].kill()

        running: list[Any] = []
        begin()
        # both show those behind it the addresses of those before it
        with encrypted(Pair(net.lab, net.a, inside), b={"relayed": [net.a.v4]}) as pair:
            lose = _losing((net.a, "eth0"), (host, "eth0"))
            legs: list[tuple[Host, str]] = [(net.router, "b"), (inside, "tap0")]
            # pasta, as of 2023, has no answer to what it does not know
            heard: Literal["then", "never"] = "never" if kind == "pasta" else "then"
            yield Way(pair.a, pair.b, host.v4, legs, "stream", lose, end, begin, heard=heard)


def _losing(*places: tuple[Host, str]) -> Callable[[float], None]:
    def lose(share: float) -> None:
        for host, interface in places:
            host.lose(share, interface)

    return lose


# -- middleboxes


class BadSyns:
    """Takes data out of SYNs, or drops SYNs with data; counts those."""

    def __init__(self, drop: bool) -> None:
        self._drop, self.count = drop, 0

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        segment = parse(frame)
        if segment is None or not segment.flags & SYN or not segment.payload:
            return [(0.0, frame)]
        self.count += 1
        return [] if self._drop else [(0.0, segment.with_payload(segment.sequence, b"", segment.flags).packed())]


class Knowing:
    """Renumbers what begins while it is here, and resets what it does not know, as firewalls may."""

    def __init__(self, box: Middlebox) -> None:
        self._box, self._renumbered = box, Renumbered(random.Random(7))
        self._known: set[frozenset[tuple[bytes, int]]] = set()

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        segment = parse(frame)
        if segment is None:
            return [(0.0, frame)]
        ends = frozenset(((segment.source, segment.ports[0]), (segment.destination, segment.ports[1])))
        if segment.flags & SYN:
            self._known.add(ends)
        if ends in self._known:
            return self._renumbered(frame, toward, now)
        if not segment.flags & RST:
            self._box.inject(_reset(segment), TO_A if toward == TO_B else TO_B)
        return []


def _reset(segment: TcpFrame) -> bytes:
    """An exact reset for whoever sent that."""
    ip = bytearray(segment.ip)
    at, size = (12, 4) if segment.version == 4 else (8, 16)
    ip[at : at + 2 * size] = segment.destination + segment.source
    ethernet = segment.ethernet[6:12] + segment.ethernet[:6] + segment.ethernet[12:]
    return TcpFrame(
        ethernet, bytes(ip), segment.destination, segment.source, segment.ports[::-1], segment.acknowledgement, 0, RST,
        0, 0, b"", b"",
    ).packed()  # fmt: skip


BOXES: dict[str, Callable[[Middlebox], Behaviour]] = {
    "strips-syns": lambda box: BadSyns(drop=False),
    "drops-syns": lambda box: BadSyns(drop=True),
    "renumbers": Knowing,
    "resegments": lambda box: Chain(Split(largest=900, dice=random.Random(11)), Join()),
}


@contextlib.contextmanager
def past_a_middlebox(kind: str) -> Iterator[Way]:
    """A box on the link between them that changes packets."""
    robs = kind.endswith("syns")
    relayed = ["10.66.0.0/24"] if robs else []
    with interrupted_pair(gso=False, gro=False) as net, encrypted(net, relayed=relayed) as pair:
        dice, share = random.Random(5), 0.0

        def passes() -> None:
            losing = Drop(share, choose=lambda segment: True, dice=dice)
            net.box.behaviour = Chain(losing, BOXES[kind](net.box))

        def lose(probability: float) -> None:
            nonlocal share
            share = probability
            passes()

        def end() -> None:
            net.box.behaviour = lambda frame, toward, now: []

        passes()
        legs = [(net.a, "eth0"), (net.b, "eth0")]
        carrier, ends = "stream" if robs else "syn", kind == "renumbers"
        yield Way(pair.a, pair.b, net.b.v4, legs, carrier, lose, end, passes, ends, "then")


def missing(kind: str) -> list[str]:
    """The programs that a way needs and that are not installed."""
    return [] if kind in BOXES else absent(kind)


WAYS: dict[str, Callable[[str], contextlib.AbstractContextManager[Way]]] = {
    **dict.fromkeys((*RELAYS, *TUNNELS), through_a_relay),
    **dict.fromkeys(ROOTLESS, into_a_container),
    **dict.fromkeys(BOXES, past_a_middlebox),
}
