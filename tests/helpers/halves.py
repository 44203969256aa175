"""Two ends of one connection without engines around them, and packets of theirs as scapy sees them."""

from __future__ import annotations

from random import Random
from typing import Any

from scapy.layers.inet import IP, TCP
from scapy.packet import Raw

from mcencrypt.core.egress import Egress
from mcencrypt.core.flow import Flow
from mcencrypt.core.ingress import Ingress
from mcencrypt.core.packet import Segment
from mcencrypt.core.paths import Paths
from mcencrypt.core.record import Keys
from mcencrypt.core.verdict import DROP, Outcome

ORIGIN, OURS, THEIRS = 138, 1000, 0xFFFFFFF0
KEY = b"\x0a\0\0\x01\x0a\0\0\x02\x9c\x40\x21\x7b"

#: Payload bytes of a full segment of the sockets here.
SEGMENT = 1438


def make_flow(near: bool, outcome: Outcome, paths: Paths, window: int = 1 << 20) -> Flow:
    """The flow at one end, as a handshake leaves it; its peer offers `window` bytes."""
    first, second = Random(1).randbytes(32), Random(2).randbytes(32)
    sending, receiving = (first, second) if near else (second, first)
    isn, peer_isn = (OURS, THEIRS) if near else (THEIRS, OURS)
    egress = Egress(isn, ORIGIN, Keys(sending))
    ingress = Ingress(peer_isn, ORIGIN, Keys(receiving))
    egress.offered(window)
    ingress.offer(1 << 20)
    key = KEY if near else KEY[4:8] + KEY[:4] + KEY[10:] + KEY[8:10]
    return Flow(
        key, egress, ingress, hello=b"", identity=b"", confirmed=True, outgoing=True, mss=1438, scales=(0, 0), now=0.0,
        outcome=outcome, paths=paths,
    )  # fmt: skip


class Half:
    """A flow and its surroundings; `near` is the end that sends the data under test."""

    def __init__(self, near: bool, window: int = 1 << 20) -> None:
        self.isn, self.peer_isn = (OURS, THEIRS) if near else (THEIRS, OURS)
        self.mtu = 1500
        self.near, self.outcome = near, Outcome()
        self.flow = make_flow(near, self.outcome, Paths(lambda path: self.mtu), window)

    def packet(self, seq: int, ack: int, flags: str, payload: bytes, window: int, options: list[Any],
               tos: int = 0) -> bytes:  # fmt: skip
        """What a socket sends, by sequence numbers."""
        ends = ("10.0.0.1", "10.0.0.2", 40000, 8571) if self.near else ("10.0.0.2", "10.0.0.1", 8571, 40000)
        tcp = TCP(sport=ends[2], dport=ends[3], seq=seq % 2**32, ack=ack % 2**32, flags=flags, window=window,
                  options=options)  # fmt: skip
        return bytes(IP(src=ends[0], dst=ends[1], id=9, tos=tos) / tcp / Raw(payload))

    def send(self, at: int, payload: bytes = b"", flags: str = "A", ack: int = 0, *, gso: bool = False,
             window: int = 60000, sack: list[tuple[int, int]] | None = None,
             stamps: tuple[int, int] | None = None, tos: int = 0,
             more: list[tuple[int, bytes]] | None = None) -> list[Any]:  # fmt: skip
        """Our socket sends, by plain offsets; what leaves for the network."""
        blocks = [(self.peer_isn + 1 + edge) % 2**32 for block in sack or [] for edge in block]
        options: list[Any] = [("NOP", None), ("NOP", None), ("Timestamp", stamps)] if stamps else []
        options += [("NOP", None), ("NOP", None), ("SAck", tuple(blocks))] if blocks else []
        options += more or []
        raw = self.packet(self.isn + 1 + at, self.peer_isn + 1 + ack, flags, payload, window, options, tos)
        verdict = self.flow.from_socket(Segment(raw), gso)
        return ([IP(verdict)] if isinstance(verdict, bytes) else []) + self.drain("network")

    def forge(self, wire: int, payload: bytes = b"", flags: str = "A", ack: int = ORIGIN, *, window: int = 60000,
              options: list[Any] | None = None, tos: int = 0) -> Any:  # fmt: skip
        """A packet from the network as anybody can send it, by wire offsets; what reaches our socket."""
        other = Half(not self.near)
        raw = other.packet(other.isn + 1 + wire, self.isn + 1 + ack, flags, payload, window, options or [], tos)
        return self.take(IP(raw))

    def take(self, packet: Any) -> Any:
        """A packet from the network; what reaches our socket."""
        verdict = self.flow.from_network(Segment(bytes(packet)))
        return IP(verdict) if isinstance(verdict, bytes) else DROP

    def drain(self, toward: str) -> list[Any]:
        found = [IP(injection.packet) for injection in self.outcome.injections if injection.toward == toward]
        self.outcome.injections = [one for one in self.outcome.injections if one.toward != toward]
        return found


def ends(window: int = 1 << 20) -> tuple[Half, Half]:
    return Half(True, window), Half(False)


def sack_of(packet: Any, isn: int) -> list[tuple[int, int]]:
    edges = [(edge - isn - 1) % 2**32 for edge in dict(packet[TCP].options).get("SAck", ())]
    return list(zip(edges[::2], edges[1::2], strict=True))
