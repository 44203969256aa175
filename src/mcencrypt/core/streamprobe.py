"""A probe with its handshake in the stream: does what is on a path carry that, and does a peer behind it answer?

A bare SYN, and once it is answered message 1 as the first bytes of the stream; then a reset.  A peer's application
hears of it only where plaintext is allowed, or where there is no mcencrypt.  What the answers mean:

    a valid message 2          the peer encrypts, on this path too
    something else             an application without mcencrypt in front of it
    connected, then an end,    a relay whose node does not answer it: it does not name the relay in `relayed`, refuses
      a reset, or silence      the handshake, or is not there
    RST                        nothing listens
    nothing                    no host, a filter - or a node that takes bare SYNs from nobody, as most do
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from .handshake import HELLO_LENGTH, Refused
from .hello import Phase, Resend, Stream
from .packet import ACK, MASK32, PSH, RST, SYN, Segment, bare, rebuild
from .probe import WINDOW, Probe
from .verdict import Outcome

_CLOSED: Final = "it connects, and ends the connection once it gets a handshake in the stream"
_UNANSWERED: Final = "it connects, and a handshake in the stream is not answered"
_OTHER: Final = "it answers a handshake in the stream with something else: no mcencrypt is running there"
_REFUSED: Final = "connection refused: nothing listens there, or a firewall rejects"
_SILENT: Final = "no answer to a SYN without data: it takes them from relays alone, if it is there"


@dataclass(eq=False, repr=False)
class StreamProbe(Probe):
    """One that is under way."""

    #: What the far side has said, once it has answered the SYN; the packet with message 1; whether that is read.
    _stream: Stream | None = field(default=None, init=False)
    _hello: bytes = field(default=b"", init=False)
    _read: bool = field(default=False, init=False)

    def again(self, now: float) -> bytes:
        if self._stream is None:
            return super().again(now)
        assert self._stream.resend is not None
        self._stream.resend.again(now)
        self.resend = self._stream.resend.at
        return self._hello

    def give_up(self, outcome: Outcome) -> None:
        if self._stream is None:
            self.end("silent", _SILENT)
        else:
            self._leave(outcome)
            self.end("unanswered", _UNANSWERED)

    def _leave(self, outcome: Outcome) -> None:
        """Reset the far side: one of these is exact, whether it has message 1 or not."""
        for edge in (HELLO_LENGTH,) if self._read else (0, HELLO_LENGTH):
            outcome.to_network(bare(self.key, self.isn + 1 + edge, 0, RST))

    def take(self, segment: Segment, now: float, outcome: Outcome) -> bool:
        flags, acked = segment.flags, segment.ack - self.isn - 1 & MASK32
        if self._stream is None:
            return self._answered(segment, acked, now, outcome)
        stream = self._stream
        if flags & RST:
            if not stream.reset_in(segment)[1]:
                return False
            self.end("unanswered", _CLOSED, now)
            return True
        if not flags & ACK or acked > HELLO_LENGTH:
            return False
        if flags & SYN:  # our answer to it was lost
            outcome.to_network(self._hello)
            return False
        if acked == HELLO_LENGTH:
            self._read, self.resend = True, self.deadline
        ended = stream.take(segment)
        if stream.collected.whole:
            self._finish(stream.collected.message(), now, outcome)
            return True
        if stream.collected.is_foreign() or ended:
            self._leave(outcome)
            if ended:
                self.end("unanswered", _CLOSED, now)
            else:
                self.end("no-mcencrypt", _OTHER, now)
            return True
        if segment.end > segment.payload_at:
            edge = HELLO_LENGTH if self._read else 0
            outcome.to_network(bare(self.key, self.isn + 1 + edge, stream.edge, ACK, WINDOW))
        return False

    def _answered(self, segment: Segment, acked: int, now: float, outcome: Outcome) -> bool:
        """Something comes back for the SYN."""
        flags = segment.flags
        if not flags & ACK or acked or not flags & (SYN | RST):
            return False
        if flags & RST:
            self.end("refused", _REFUSED, now)
            return True
        stream = self._stream = Stream(self.key, segment.seq, Phase.OPEN, now)
        stream.resend = Resend(now)
        self.sent, self.resend = now, stream.resend.at
        opening = Segment(bare(self.key, self.isn + 1, stream.edge, ACK | PSH, WINDOW))
        self._hello = rebuild(opening, self.isn + 1, stream.edge, self.dial.hello)
        outcome.to_network(self._hello)
        return False

    def _finish(self, hello: bytes, now: float, outcome: Outcome) -> None:
        self._leave(outcome)
        try:
            session = self.dial.finish(hello)
        except Refused as refused:
            self.end("not-authentic", f"it answers in the stream, but {refused}", now)
        else:
            self.end("encrypted", "the handshake in the stream was answered", now, session.remote_static)
