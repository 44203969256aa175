"""An attacker who knows addresses and ports and nothing else, and what a plain TCP makes of what it sends.

`PlainSocket` is the oracle: the numbers that Linux would have in the place of one side, were the wire's bytes its own
stream, and which segments it then ignores (RFC 9293 section 3.10.7.4, RFC 5961, RFC 7323 section 5;
tcp_validate_incoming and tcp_ack in net/ipv4/tcp_input.c). What it ignores must not do anything to the socket behind
mcencrypt either.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from struct import pack
from typing import Any

from tests.helpers.packets import ACK, FIN, RST, SYN, WORD, Packet, options_of
from tests.helpers.world import World

#: Distances from an edge: beside it, a byte or a record away, out of any window, and on the other side of the circle.
DISTANCES = sorted(
    sign * distance
    for distance in (0, 1, 2, 5, 21, 22, 23, 100, 1460, 70_000, 600_000, 1 << 24, 1 << 30, (1 << 31) - 1, 1 << 31)
    for sign in (-1, 1)
)
#: Distances from the timestamp that a socket has seen last.
STAMPS = (0, 0, 1, -1, 1000, -1000, 0x3FFFFFFF, -0x3FFFFFFF, 0x7FFFFFFF, -0x7FFFFFFF, 1 << 31)


def _signed(number: int) -> int:
    """A number modulo 2^32 as one from -2^31 on."""
    return (number + 0x80000000 & WORD) - 0x80000000


@dataclass(frozen=True)
class PlainSocket:
    """One side as the wire shows it, at a moment when nothing is under way to it that it could have missed."""

    #: Sequence numbers.
    rcv_nxt: int
    right_edge: int
    snd_una: int
    snd_nxt: int
    #: The largest window that the far side offered, and how much it acknowledged, if less (tcp_ack: max_window).
    tolerance: int
    timestamps: bool
    ts_recent: int
    half_closed: bool

    @classmethod
    def of(cls, world: World, side: int) -> PlainSocket:
        """`side` of a world after `calm` and a pure acknowledgement of both."""
        mine, other, end = world.witnesses[side], world.witnesses[1 - side], world.ends[side]
        return cls(
            rcv_nxt=other.isn + 1 + mine.acked & WORD,
            right_edge=other.isn + 1 + mine.edge & WORD,
            snd_una=mine.isn + 1 + other.acked & WORD,
            snd_nxt=mine.isn + 1 + mine.end & WORD,
            tolerance=min(other.largest_window, other.acked),
            timestamps=end.timestamps,
            ts_recent=end.ts_recent,
            half_closed=end.fin_taken,
        )

    def ignores(self, packet: Packet) -> bool:
        """Whether the segment changes nothing, but for an answer that it may get."""
        if packet.flags & SYN:
            return True  # a challenge is all that it gets (RFC 5961 section 4)
        if packet.flags & RST:
            exact = [self.rcv_nxt, self.rcv_nxt - 1] if self.half_closed else [self.rcv_nxt]  # tcp_reset_check
            return packet.seq & WORD not in [number & WORD for number in exact]
        if not packet.flags & ACK:
            return True
        stamp = options_of(packet.options).get(8)
        if self.timestamps and self.ts_recent and stamp:
            age = _signed(self.ts_recent - int.from_bytes(stamp[:4], "big"))
            if age > 0:
                return True
        end = packet.seq + len(packet.payload) + bool(packet.flags & FIN)
        if _signed(end - self.rcv_nxt) < 0 or _signed(self.right_edge - packet.seq) < 0:
            return True
        beyond = _signed(packet.ack - self.snd_nxt) > 0
        return beyond or _signed(packet.ack - self.snd_una) < -self.tolerance


def forge(random: Random, world: World, side: int, socket: PlainSocket) -> Packet:
    """A segment as if from the far side, toward `side`, with numbers from everywhere."""
    end = world.ends[side]
    flags = random.choice((ACK, ACK, ACK, RST, RST | ACK, FIN | ACK, SYN, SYN | ACK, 0, ACK | 0x20, ACK | 0xC0))
    seq = random.choice((socket.rcv_nxt, socket.right_edge)) + random.choice(DISTANCES)
    ack = random.choice((socket.snd_una, socket.snd_nxt)) + random.choice(DISTANCES)
    options = b""
    if random.random() < 0.8:
        options = b"\x01\x01\x08\x0a" + pack(
            "!II", socket.ts_recent + random.choice(STAMPS) & WORD, random.randrange(1 << 32)
        )
        if random.random() < 0.2:
            options = options[2:] + b"\x01\x01"  # another order than the usual one
    if end.sack and random.random() < 0.3:
        left = random.choice((ack, socket.snd_una, socket.snd_nxt)) + random.choice(DISTANCES)
        options += b"\x01\x01\x05\x0a" + pack("!II", left & WORD, left + random.choice((1, 22, 1460, 1 << 20)) & WORD)
    payload = b""
    if not flags & (RST | SYN) and random.random() < 0.5:
        payload = random.choice((b"x", random.randbytes(random.choice((1, 22, 30, 1000))), bytes(60)))
        known = world.witnesses[1 - side].bytes
        if random.random() < 0.3 and len(known) > 200:
            at = random.randrange(len(known) - 100)
            payload = bytes(known[at : at + 100])  # true bytes at a wrong place, as of a firewall that is out of step
    window = random.choice((0, 1, 500, 65535))
    return Packet(
        end.remote[0],
        end.local[0],
        (end.remote[1], end.local[1]),
        seq & WORD,
        ack & WORD,
        flags,
        window,
        options,
        payload,
    )


def snapshot(world: World, side: int) -> dict[str, Any]:
    """All that must not move: the socket of a side, and the flow beside it."""
    end = world.ends[side]
    found: dict[str, Any] = {
        name: getattr(end, name)
        for name in (
            "state",
            "reset",
            "una",
            "sent",
            "edge",
            "next",
            "read",
            "fin_at",
            "fin_taken",
            "fin_sent",
            "announced",
        )
    } | {
        "ts_recent": end.ts_recent,
        "sacked": bytes(end.sacked),
        "content": bytes(end.content),
        "mask": bytes(end.mask),
    }
    (flow,) = world.engines[side]._by_local.values()
    for name, thing in {
        "flow": flow,
        "egress": flow.egress,
        "ingress": flow.ingress,
        "sealed": flow.egress.ledger,
        "opened": flow.ingress.ledger,
    }.items():
        for cls in type(thing).__mro__:
            for slot in getattr(cls, "__slots__", ()):
                value = getattr(thing, slot)
                if isinstance(value, int | bytes | None) and slot not in ("seen", "_repeated_at"):
                    found[f"{name}.{slot}"] = value
    found["closing"] = flow.is_closing()
    found["egress.sacked"] = list(flow.egress.sacked)
    found["kept"] = [(run.wire, run.wire_end, len(run.blob)) for run in flow.egress.ledger.runs]
    found["known"] = [(run.wire, run.wire_end, run.plain) for run in flow.ingress.ledger.runs]
    found["pieces"] = bool(flow.ingress.fragments)
    return found
