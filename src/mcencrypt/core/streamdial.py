"""A handshake in the stream, on the side that dials.

Our socket's SYN was answered without message 2, so it is connected, to something that carries a stream.  Its first
acknowledgement carries message 1.  Until message 2 is here it must not send: the SYN-ACK that it gets offers it no
window, so what its application writes waits in the socket, no timer runs for it, and nothing has to be kept here.
Then it is told of the window, and what it sends, with its own numbers and at its own time, leaves as records.  So the
wait is no round trip to it, and costs it nothing of its congestion window.
"""

from __future__ import annotations

from typing import Final

from .addresses import reversed_key
from .flow import Flow
from .handshake import HELLO_LENGTH, Dial
from .hello import Phase, Resend, Stream, ours, stamp_of
from .options import SynOptions, timestamps
from .packet import ACK, MASK32, PSH, RST, Segment, rebuild
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
        "mss",
        "read",
        "scales",
        "window",
    )

    def __init__(
        self,
        key: bytes,
        dial: Dial,
        isns: tuple[int, int],
        window: int,
        scales: tuple[int | None, int | None],
        mss: int,
        now: float,
        bare: bool = False,
    ) -> None:
        """Our and the far side's initial sequence numbers, the window in our SYN, and window scales.

        `mss`: as our socket was told.  `bare`: the last SYN had no message 1.
        """
        super().__init__(key, isns[1], Phase.OPEN, now)
        self.bare = bare
        self.dial, self.isn, self.window, self.scales, self.mss = dial, isns[0], window, scales, mss
        #: Our socket's first acknowledgement as it left, with message 1; and when.
        self._carrier, self._at = b"", now
        #: Whether the far side has read message 1 (its TCP, that is).
        self.read = False

    # -- our socket

    def syn_ack(self, segment: Segment, options: SynOptions | None = None) -> bytes:
        """The far side's SYN-ACK as our socket gets it: there is no window yet."""
        passed = None if options is None else options.passed
        return rebuild(segment, segment.seq, self.isn + 1, options=passed, window=0)

    def from_socket(self, segment: Segment, now: float) -> Verdict:
        """A packet of our socket, no reset: it acknowledges the SYN-ACK, or asks for a window."""
        if not self._carrier:
            self._carrier = rebuild(segment, self.isn + 1, self.remote_isn + 1, self.dial.hello, flags=ACK | PSH)
            self._at, self.resend = now, Resend(now)
            return self._carrier
        return DROP if self.read else self._carrier

    def reset_out(self) -> list[bytes]:
        """Resets of ours for the far side: one of them is exact, whether it has message 1 or not."""
        numbers = [self.isn + 1 + HELLO_LENGTH] if self.read else [self.isn + 1, self.isn + 1 + HELLO_LENGTH]
        return [bare_segment(self.key, seq, 0, RST) for seq in numbers[: 1 + bool(self._carrier)]]

    def reset_socket(self) -> bytes:
        """An exact reset for our socket."""
        return bare_segment(reversed_key(self.key), self.remote_isn + 1, self.isn + 1, RST | ACK)

    # -- the far side

    def heard(self, segment: Segment, now: float) -> bool:
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

    def opens(self, window: int) -> bytes:
        """The acknowledgement by which our socket learns of `window`, as headers have it: unscaled."""
        sent = stamp_of(Segment(self._carrier))
        head = bare_segment(reversed_key(self.key), 0, 0, ACK, window)
        stamps = (self.echo or 0 if sent is not None else None, sent)
        return ours(head, self.remote_isn + 1, self.isn + 1, b"", window, stamps)

    def nothing(self, flow: Flow, now: float) -> bytes:
        """A record of nothing, for a far side that waits for one, of a socket that has nothing to say."""
        start = flow.egress.ledger.wire_top
        sealed = flow.egress.push(b"", HELLO_LENGTH, HELLO_LENGTH, False)
        flow.egress.sent = flow.egress.ledger.wire_top
        sent = Segment(self._carrier)
        stamps = (self._stamp(now), self.echo)
        return ours(self._carrier, flow.egress.seq(start), self.edge, sealed, sent.window, stamps)

    def _stamp(self, now: float) -> int | None:
        """What our socket's clock says, in the milliseconds that it counts (tcp_time_stamp_ms), and surely no more."""
        value = stamp_of(Segment(self._carrier))
        return None if value is None else value + max(0, int((now - self._at) * 1000) - _LAG_MS)

    def nothing_again(self, packet: bytes, now: float) -> bytes:
        """The record of nothing once more: our socket may have sent something newer meanwhile."""
        assert self.resend is not None
        self.resend.again(now)
        segment = Segment(packet)
        echo = timestamps(segment.options())
        stamps = (self._stamp(now), echo[1] if echo else None)
        return ours(packet, segment.seq, segment.ack, segment.payload(), segment.window, stamps)
