"""Connections of peers that may yet turn out to be encrypted, where plaintext is allowed as well.

A peer behind a relay that `relayed` does not name looks like one without mcencrypt: its SYN has no message 1.  Where
the policy lets that pass, our socket answers and is connected; if the stream then begins with message 1 it is answered,
and the connection is encrypted from there on.  Until that is known nothing of the stream reaches the socket except its
beginning, for the kernel would keep what lies further on, and join it later to what is encrypted.

What is remembered of a SYN anybody can cause, so it is little, and gives way to newer ones; a connection is looked at
only if our own kernel has answered.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, NamedTuple

from .handshake import MAGIC
from .hello import DEADLINE, offset_of
from .limits import make_room
from .options import SynOptions, read_syn
from .packet import FIN, MASK32, RST, Segment
from .streamanswer import Answered

#: SYNs, and connections of which nothing was heard so far, that are remembered; the oldest give way.
CAPACITY: Final = 2048
#: Seconds that the first bytes of a stream may wait where it takes more of them to know.
PATIENCE: Final = 1.0


class _Asked(NamedTuple):
    """What a peer's bare SYN has said."""

    segment: Segment
    options: SynOptions


class _Open:
    """A connection that our kernel has answered."""

    __slots__ = ("answered", "patient_until")

    def __init__(self, answered: Answered) -> None:
        self.answered = answered
        #: When its first bytes, too few to know, must pass.
        self.patient_until: float | None = None


class Undecided:
    """Those of one engine; by connection key, ours first."""

    def __init__(self) -> None:
        self._asked: dict[bytes, _Asked] = {}
        self._open: dict[bytes, _Open] = {}

    def __bool__(self) -> bool:
        return bool(self._open)

    def __contains__(self, key: bytes) -> bool:
        return key in self._open

    def syn(self, segment: Segment, key: bytes) -> None:
        """A peer's SYN without message 1 may pass."""
        self._asked.pop(key, None)
        make_room(self._asked, CAPACITY)
        self._asked[key] = _Asked(Segment(bytes(segment.packet[: segment.end])), read_syn(segment.options()))

    def syn_ack(self, segment: Segment, key: bytes, now: float) -> None:
        """Our socket answers, in plaintext as it seems."""
        asked = self._asked.get(key)
        if asked is None or asked.segment.seq + 1 & MASK32 != segment.ack:
            return
        options = read_syn(segment.options())
        if options.signed or options.passed != segment.options():
            return
        known = self._open.get(key)
        if known is None or known.answered.remote_isn != asked.segment.seq:
            self._open.pop(key, None)
            make_room(self._open, CAPACITY)
            syn = asked.segment
            known = self._open[key] = _Open(Answered(key, syn, asked.options, bytes(syn.packet), now, DEADLINE))
        known.answered.syn_ack(segment, options, now)

    def spoken(self, segment: Segment, key: bytes) -> None:
        """Our socket sends something, no SYN: if it is more than an acknowledgement, that was in plaintext."""
        if segment.flags & (FIN | RST) or segment.end > segment.payload_at:
            self.forget(key)

    def first_words(self, segment: Segment, key: bytes, now: float) -> Answered | bool:
        """What a segment of the far side's, with ACK and neither SYN nor RST, makes of a connection in here.

        An attempt with a handshake in the stream, of which this segment has the beginning, and which is no more in
        here; True if nothing is known of it yet and it must not pass; False if it is in plaintext and may.
        """
        known = self._open[key]
        answered = known.answered
        if now >= answered.expires:
            self.forget(key)
            return False
        length, at = segment.end - segment.payload_at, offset_of(segment.seq, answered.remote_isn)
        if at + length < 0:
            return False
        if not answered.heard(segment, now):
            return bool(length or segment.flags & FIN)
        if not length:
            answered.is_accepted = True
            if segment.flags & FIN and not at:
                self.forget(key)  # it had nothing to say
            return bool(segment.flags & FIN and at)
        if at + length == 0:
            return False
        answered.collected.add(at, segment.payload())
        if not answered.collected.is_foreign():
            if answered.collected.edge >= len(MAGIC):
                self.forget(key)
                return answered
            if known.patient_until is None:
                known.patient_until = now + PATIENCE
            if now < known.patient_until:
                return True
        self.forget(key)
        return at > 0  # what has begun further on comes again

    def forget(self, key: bytes) -> None:
        """It is decided, or over."""
        self._asked.pop(key, None)
        self._open.pop(key, None)

    def __iter__(self) -> Iterator[bytes]:
        return iter(self._open)
