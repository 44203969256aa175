"""A handshake in the stream, on the side that dials.

Our socket's SYN was answered without message 2, so it is connected, to something that carries a stream.  Its first
acknowledgement carries message 1; what it sends meanwhile is kept, and leaves as records once message 2 is here.

Until then nothing leaves with a timestamp newer than the one that message 1 left with, message 1 repeated included:
what was kept is older, and behind anything newer the far side would take it for old (PAWS, RFC 7323 section 5) and drop
it.  Nor is anything lost for our socket then: its segments are acknowledged with their own timestamps, late, and so it
sees that to repeat them was needless (RFC 3522).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from .addresses import reversed_key
from .flow import Flow
from .handshake import HELLO_LENGTH, Dial
from .hello import KEPT, Phase, Resend, Stream, offset_of, ours, stamp_of
from .options import timestamps
from .packet import ACK, FIN, MASK32, PSH, RST, Buffer, Segment, rebuild
from .packet import bare as bare_segment
from .verdict import DROP, Verdict

#: Milliseconds by which a timestamp of our own lags behind our socket's clock, to be surely no newer than that.
_LAG_MS: Final = 10


class Dialled(Stream):
    """A connection of ours whose SYN was answered without message 2."""

    __slots__ = (
        "_at",
        "_carrier",
        "bare",
        "dial",
        "isn",
        "kept",
        "kept_bytes",
        "mss",
        "read",
        "scales",
        "seen",
        "windows",
    )

    def __init__(
        self,
        key: bytes,
        dial: Dial,
        isns: tuple[int, int],
        windows: tuple[int, int],
        scales: tuple[int | None, int | None],
        mss: int,
        now: float,
        bare: bool = False,
    ) -> None:
        """Our and the far side's initial sequence numbers, windows in SYN and SYN-ACK, and window scales.

        `mss`: as our socket was told.  `bare`: the last SYN had no message 1.
        """
        super().__init__(key, isns[1], Phase.OPEN, now)
        self.bare = bare
        self.dial, self.isn, self.windows, self.scales, self.mss = dial, isns[0], windows, scales, mss
        #: Our socket's first acknowledgement as it left, with message 1; and when.
        self._carrier, self._at = b"", now
        #: Packets of our socket that wait for the keys, as they came, and their payload's bytes.
        self.kept: list[bytes] = []
        self.kept_bytes = 0
        #: Plain offset up to which they were kept; whether the far side has read message 1 (its TCP, that is).
        self.seen, self.read = 0, False

    # -- our socket

    def from_socket(self, segment: Segment, room: int, now: float) -> Verdict:
        """A packet of our socket, no reset; `room`: bytes that may be kept of it."""
        if not self._carrier:
            self._keep(segment, room)
            self._carrier = rebuild(
                segment, self.isn + 1, self.remote_isn + 1, self.dial.hello, flags=ACK | PSH
            )  # fmt: skip
            self._at, self.resend = now, Resend(now)
            return self._carrier
        length = segment.end - segment.payload_at
        if (length or segment.flags & FIN) and offset_of(segment.seq, self.isn) == self.seen:
            self._keep(segment, room)
            return DROP
        if offset_of(segment.seq, self.isn) > self.seen or self.read:
            return DROP
        return self._carrier  # it repeats itself: what was to carry message 1 is lost, or the answer

    def _keep(self, segment: Segment, room: int) -> None:
        length = segment.end - segment.payload_at
        if offset_of(segment.seq, self.isn) != self.seen or not (length or segment.flags & FIN):
            return
        if length > min(room, KEPT - self.kept_bytes):
            return  # TCP will send it again
        self.kept.append(bytes(segment.packet[: segment.end]))
        self.kept_bytes += length
        self.seen += length + (segment.flags & FIN)

    def reset_out(self) -> list[bytes]:
        """Resets of ours for the far side: one of them is exact, whether it has message 1 or not."""
        numbers = [self.isn + 1 + HELLO_LENGTH] if self.read else [self.isn + 1, self.isn + 1 + HELLO_LENGTH]
        return [bare_segment(self.key, seq, 0, RST) for seq in numbers[: 1 + bool(self._carrier)]]

    def reset_socket(self) -> bytes:
        """An exact reset for our socket."""
        return bare_segment(reversed_key(self.key), self.remote_isn + 1, self.isn + 1, RST | ACK)

    # -- the far side

    def heard(self, segment: Segment) -> bool:
        """Whether a segment with ACK can be the far side's; takes note of what it acknowledges."""
        acked = segment.ack - self.isn - 1 & MASK32
        if acked > (HELLO_LENGTH if self._carrier else 0):
            return False
        if acked == HELLO_LENGTH and self._carrier:
            self.read, self.resend = True, None
        return True

    def acknowledgement(self) -> bytes:
        """An acknowledgement of what there is of message 2."""
        sent = Segment(self._carrier)
        return ours(
            self._carrier, self.isn + 1 + HELLO_LENGTH, self.edge, b"", sent.window, (stamp_of(sent), self.echo)
        )

    @property
    def has_asked(self) -> bool:
        """Whether message 1 has left."""
        return bool(self._carrier)

    def begin_again(self, now: float) -> None:
        """Something else is to be sent again from now on."""
        self.resend = Resend(now)

    def again(self, now: float) -> bytes:
        """Message 1 once more."""
        assert self.resend is not None
        self.resend.again(now)
        return self._carrier

    # -- when the keys are there

    def release(self, flow: Flow) -> list[bytes]:
        """What was kept, as records.  If it is nothing, a record of nothing: the far side waits for one."""
        leaving: list[bytes] = []
        for packet in self.kept:
            for segment in _segments(Segment(packet), self.mss):
                verdict = flow.from_socket(segment, False)
                if isinstance(verdict, bytes):
                    leaving.append(verdict)
        return leaving or [self._nothing(flow)]

    def _nothing(self, flow: Flow) -> bytes:
        start = flow.egress.ledger.wire_top
        sealed = flow.egress.push(b"", HELLO_LENGTH, HELLO_LENGTH, False)
        flow.egress.sent = flow.egress.ledger.wire_top
        sent = Segment(self._carrier)
        stamps = (stamp_of(sent), self.echo)
        return ours(self._carrier, flow.egress.seq(start), self.edge, sealed, sent.window, stamps)

    def nothing_again(self, packet: bytes, now: float) -> bytes:
        """The record of nothing once more, at a later time.

        Meanwhile our socket may have sent something newer; its clock counts milliseconds (tcp_time_stamp_ms).
        """
        assert self.resend is not None
        self.resend.again(now)
        segment = Segment(packet)
        value = stamp_of(segment)
        if value is not None:
            value += max(0, int((now - self._at) * 1000) - _LAG_MS)
        echo = timestamps(segment.options())
        return ours(
            packet, segment.seq, segment.ack, segment.payload(), segment.window, (value, echo[1] if echo else None)
        )


def _segments(segment: Segment, mss: int) -> Iterator[Segment]:
    """A batch of our socket's, cut as it would have been: each with our overhead fits the path."""
    largest = max(mss - (segment.payload_at - segment.tcp_at - 20), 1)
    payload: Buffer = segment.payload()
    if len(payload) <= largest:
        yield segment
        return
    for number, at in enumerate(range(0, len(payload), largest)):
        last = at + largest >= len(payload)
        flags = segment.flags if last else segment.flags & ~(FIN | PSH)
        yield Segment(
            rebuild(
                segment, segment.seq + at, segment.ack, payload[at : at + largest], flags=flags,
                identification_step=number,
            )
        )  # fmt: skip
