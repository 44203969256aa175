"""Ingress: whatever the network delivers, the socket reads what the peer wrote, at its place, or nothing.

Two engines at the receiving end get the same packets, one by the fast way where that takes them and one never: what
they answer must be the same.
"""

from __future__ import annotations

from dataclasses import replace

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core.engine import Engine
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.keyring import KeyRing
from mcencrypt.core.packet import VERDICT_LIMIT, Segment
from mcencrypt.core.paths import Paths
from mcencrypt.core.policy import Policy, Surroundings
from mcencrypt.core.verdict import Action, Outcome
from tests.fuzz.source import Source
from tests.helpers.halves import ORIGIN, OURS, THEIRS, make_flow
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN, WORD, Packet, parse
from tests.helpers.sides import make

#: What the sender writes: each place has bytes of its own.
TEXT = b"".join(b"%07d\n" % number for number in range(1 << 14))
MAX_STEPS = 40


STATIC = X25519PrivateKey.from_private_bytes(b"s" * 32)
RING = KeyRing([NetworkSecret(b"k" * 32)])
#: Numbers on the network right behind the handshake.
EDGE_A, EDGE_B = OURS + 1 + ORIGIN, THEIRS + 1 + ORIGIN
A, B = (bytes((10, 0, 0, 1)), 40000), (bytes((10, 0, 0, 2)), 8571)


def mtu_of(path: object) -> int:
    return 1500


class Bench:
    """A sender, and a receiver twice."""

    def __init__(self, gso: bool) -> None:
        self.outcome = Outcome()
        self.sender = make_flow(True, self.outcome, Paths(mtu_of))
        self.fast, self.slow = (
            Engine(Policy(), RING, STATIC, Surroundings(bytes, lambda: 0, mtu_of)) for _ in range(2)
        )
        for engine in (self.fast, self.slow):
            engine.table.add(make_flow(False, engine.outcome, Paths(mtu_of)))
        self.now = 0.0
        self.gso = gso
        self.written = 0
        self.finished = False
        #: What the receiver's socket has read, and what waits behind holes.
        self.read = 0
        self.out_of_order: list[tuple[int, int]] = []
        #: Bytes that it has written, and whether that is all.
        self.wrote = 0
        self.over = False
        self.sent: list[Packet] = []

    def write(self, size: int, flags: int) -> None:
        """The sender's socket sends, be it a batch."""
        data = TEXT[self.written : self.written + size]
        if self.finished or not data:
            return
        made = make(A, B, OURS + 1 + self.written, THEIRS + 1, flags, data)
        verdict = self.sender.from_socket(Segment(made.build()), self.gso and size > 1400)
        self.written += len(data)
        self.finished = bool(flags & FIN)
        self.sent += [parse(verdict)] if isinstance(verdict, bytes) else []
        for injection in self.outcome.injections:
            if injection.toward == "network":
                self.sent.append(parse(injection.packet))
        self.outcome.injections.clear()

    def answer(self, flags: int, read: int, size: int) -> None:
        """The receiver's socket acknowledges what it has read, or some of it, and writes: a kernel, which is honest."""
        if self.over:
            return
        ack = OURS + 1 + min(read, self.read)
        self.send(make(B, A, THEIRS + 1 + self.wrote, ack, flags, bytes(size) if flags & PSH else b""))
        self.wrote += size if flags & PSH else 0
        self.over = bool(flags & (FIN | RST))

    def send(self, packet: Packet) -> Packet | Action:
        """The receiver's socket sends."""
        raw = packet.build()
        engine, now = self.fast, self.now
        taken = engine.express.verdict(raw, 1, True, now)
        one = engine.egress(raw, 1, now) if taken is None else taken
        other = self.slow.egress(raw, 1, self.now)
        assert one == other, "the fast way out is another"
        self.follows()
        return parse(one) if isinstance(one, bytes) else one

    def receive(self, raw: bytes, skb_info: int = 0) -> None:
        """The network delivers to the receiver."""
        engine, now = self.fast, self.now
        taken = engine.express.verdict(raw, skb_info, False, now)
        one = engine.ingress(raw, skb_info, now) if taken is None else taken
        other = self.slow.ingress(raw, skb_info, self.now)
        assert one == other, "the fast way in is another"
        if isinstance(one, bytes):
            self.arrives(one)
        self.follows()

    def arrives(self, raw: bytes) -> None:
        """A packet reaches the receiver's socket."""
        assert len(raw) <= VERDICT_LIMIT
        seen = parse(raw)
        if seen.flags & SYN:
            assert not seen.payload
            return
        at = (seen.seq - OURS - 1 + (1 << 31) & WORD) - (1 << 31)
        end = at + len(seen.payload)
        if seen.payload and end > self.read:
            # what lies below is not looked at by TCP, which has read that place already
            new = seen.payload[max(self.read - at, 0) :]
            assert new == TEXT[end - len(new) : end] and end <= self.written, "bytes that nobody wrote"
            self.out_of_order.append((at, end))
            for begin, stop in sorted(self.out_of_order):
                if begin <= self.read < stop:
                    self.read = stop
        if seen.flags & (FIN | RST) == FIN and end >= self.read:
            assert self.finished and end == self.written, "an end that nobody wrote"

    def follows(self) -> None:
        """What is injected, the same from both."""
        one, other = self.fast.outcome, self.slow.outcome
        assert one.injections == other.injections and one.sockets == other.sockets and one.refused == other.refused
        for injection in one.injections:
            if injection.toward == "socket":
                if injection.packet[9 if injection.packet[0] >> 4 == 4 else 6] == 6:
                    self.arrives(injection.packet)
            else:
                assert TEXT[:64] not in injection.packet
        for outcome in (one, other):
            outcome.injections.clear()
            outcome.sockets.clear()
            outcome.events.clear()

    def tick(self, seconds: int) -> None:
        """Time passes."""
        self.now += seconds
        for engine in (self.fast, self.slow):
            engine.tick(self.now)
        self.follows()


def distorted(packet: Packet, source: Source) -> Packet:
    """A packet of the sender's after somebody had it in his hands."""
    kind, payload = source.byte(), packet.payload
    if kind & 1:
        packet = replace(packet, seq=packet.seq + source.near() & WORD)
    if kind & 2:
        packet = replace(packet, ack=packet.ack + source.near() & WORD)
    if kind & 4:
        packet = replace(packet, flags=packet.flags ^ source.byte() & 0x3F)
    if kind & 8:
        packet = replace(packet, window=source.number(2))
    if kind & 16:
        at = source.number(2)
        packet = replace(packet, payload=payload[at : at + source.number(2)], seq=packet.seq + at & WORD)
    if kind & 32 and packet.payload:
        changed = bytearray(packet.payload)
        changed[source.number(2) % len(changed)] ^= source.byte() or 1
        packet = replace(packet, payload=bytes(changed))
    if kind & 64:
        options = source.part()[:40]
        packet = replace(packet, options=options + bytes(-len(options) % 4))
    return packet


def step(bench: Bench, source: Source) -> None:
    kind = source.byte() % 10
    if kind < 2:
        size, last = source.number(2) % 5000, source.byte() % 16
        bench.write(size, ACK | PSH | FIN if last == 15 else ACK | PSH if last & 1 else ACK)
    elif kind < 5 and bench.sent:
        bench.receive(bench.sent[source.byte() % len(bench.sent)].build())
    elif kind < 7 and bench.sent:
        packet = distorted(bench.sent[source.byte() % len(bench.sent)], source)
        bench.receive(packet.build(), 4 * (source.byte() & 1))
    elif kind == 7:
        flags = source.byte() & 0x3F
        seq, ack = EDGE_A + source.near(), EDGE_B + source.near()
        options = source.part()[:40]
        made = make(A, B, seq, ack, flags, source.part(), options + bytes(-len(options) % 4))
        bench.receive(made.build(), 4 * (source.byte() & 1))
    elif kind == 8:
        flags = (ACK, ACK | PSH, ACK | FIN, RST | ACK)[source.byte() % 4]
        bench.answer(flags, source.number(2), source.number(2) % 2000)
    elif source.byte() & 1:
        bench.tick(source.byte())
    else:
        raw = bytearray(bench.sent[-1].build() if bench.sent and source.byte() & 1 else source.part())
        for _ in range(source.byte() % 4):
            if raw:
                raw[source.byte() % len(raw)] ^= source.byte()
        bench.receive(bytes(raw), 4)


def target(data: bytes) -> None:
    source = Source(data)
    bench = Bench(bool(source.byte() & 1))
    for _ in range(MAX_STEPS):
        if not source:
            break
        step(bench, source)
