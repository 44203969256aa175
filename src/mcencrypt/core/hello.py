"""A handshake in the stream: what both ends of it need.

Paths that end TCP in the middle, or that take data out of SYNs, carry a stream of bytes all the same.  There the two
messages are the first bytes of either direction, at the wire offsets that they have in SYNs as well: [0, 138), records
follow.  The local socket knows nothing of these bytes, so what TCP does for others is done here: they are put together
from pieces, acknowledged, and sent again.
"""

from __future__ import annotations

from enum import Enum
from struct import pack
from typing import Final

from .handshake import HELLO_LENGTH, MAGIC
from .kinds import TIMESTAMPS, walk
from .ledger import unwrap
from .options import ONLY_TIMESTAMPS, timestamps
from .packet import ACK, FIN, MASK32, PSH, Buffer, Segment, rebuild

#: Seconds after which a message that is not acknowledged is sent again, and again after twice that (RFC 6298).
RESEND_AFTER: Final = 0.2
#: Seconds that a handshake in a stream may take, from the SYN-ACK on.
DEADLINE: Final = 10.0
#: An initial window, in bytes: four of them may wait for our socket until it is told of a connection.
KEPT: Final = 16 << 10


class Phase(Enum):
    """How far a handshake in a stream is."""

    #: A peer's SYN went to our socket, which has not answered yet.
    ASKED = "the SYN has passed"
    #: TCP is established, or about to be; message 1 is on its way, or to be sent.
    OPEN = "message 1 is under way"
    #: Answering: message 2 is sent, and nobody has proven to have read it.
    ANSWERED = "message 2 is under way"
    #: Answering: the first record has verified, and our socket is told again of the SYN.
    PROVEN = "the first record has verified"


class Turn(Enum):
    """What takes a handshake in a stream from one phase to the next, or out of them."""

    SYN_ACK = "our socket, or the peer's, has sent its SYN-ACK"
    MESSAGE_1 = "message 1 is whole and valid"
    MESSAGE_2 = "message 2 is whole and valid"
    RECORD = "a record has verified, long after our SYN-ACK"
    RECORD_SOON = "a record has verified"
    SYN_ACK_AGAIN = "our socket has answered the SYN again, or will not"
    ENDED = "reset, cut off, too late, or not a handshake"


#: Every move; None: it is over, with a flow or without.
MOVES: Final[dict[tuple[Phase, Turn], Phase | None]] = {
    (Phase.ASKED, Turn.SYN_ACK): Phase.OPEN,
    (Phase.OPEN, Turn.MESSAGE_1): Phase.ANSWERED,
    (Phase.OPEN, Turn.MESSAGE_2): None,
    (Phase.ANSWERED, Turn.RECORD): Phase.PROVEN,
    (Phase.ANSWERED, Turn.RECORD_SOON): None,
    (Phase.PROVEN, Turn.SYN_ACK_AGAIN): None,
    **{(phase, Turn.ENDED): None for phase in Phase},
}


class Collected:
    """The handshake message at the start of a stream, from pieces in any order; of overlapping ones the newer win."""

    __slots__ = ("_data", "_there")

    def __init__(self) -> None:
        self._data, self._there = bytearray(HELLO_LENGTH), 0

    def add(self, offset: int, data: Buffer) -> None:
        """`data` at that offset of the stream; what is not part of the message is left out."""
        start, end = max(offset, 0), min(offset + len(data), HELLO_LENGTH)
        if start < end:
            self._data[start:end] = data[start - offset : end - offset]
            self._there |= (1 << end) - (1 << start)

    @property
    def edge(self) -> int:
        """How many bytes are there without a hole."""
        return (~self._there & self._there + 1).bit_length() - 1

    @property
    def whole(self) -> bool:
        return self.edge == HELLO_LENGTH

    def is_foreign(self) -> bool:
        """Whether what is there cannot become a handshake message."""
        begun = min(self.edge, len(MAGIC))
        return bytes(self._data[:begun]) != MAGIC[:begun]

    def message(self) -> bytes:
        """The whole message."""
        return bytes(self._data)

    def clear(self) -> None:
        self._there = 0


class Resend:
    """When something is sent again that no socket would send again."""

    __slots__ = ("_interval", "at")

    def __init__(self, now: float) -> None:
        self._interval = RESEND_AFTER
        self.at = now + RESEND_AFTER

    def again(self, now: float) -> None:
        """It was sent again."""
        self._interval *= 2
        self.at = now + self._interval


class Stream:
    """What the dialling and the answering side know alike of a connection: numbers from SYN and SYN-ACK."""

    __slots__ = ("begun", "collected", "echo", "expires", "key", "phase", "remote_isn", "resend")

    def __init__(self, key: bytes, remote_isn: int, phase: Phase, now: float, deadline: float = DEADLINE) -> None:
        """`key`: ours first.  `remote_isn`: the far side's initial sequence number."""
        self.key, self.remote_isn, self.phase = key, remote_isn, phase
        self.collected = Collected()
        #: The far side's newest timestamp.
        self.echo: int | None = None
        self.resend: Resend | None = None
        self.begun, self.expires = now, now + deadline

    def move(self, turn: Turn) -> None:
        """Go where `MOVES` says; a turn that it does not know is a fault of ours."""
        target = MOVES[self.phase, turn]
        if target is not None:
            self.phase = target

    @property
    def next_at(self) -> float:
        """When something is to be done."""
        return min(self.expires, self.resend.at) if self.resend else self.expires

    @property
    def edge(self) -> int:
        """Sequence number behind all bytes of the far side's that we have acknowledged."""
        return self.remote_isn + 1 + self.collected.edge

    def take(self, segment: Segment) -> bool:
        """Take what a segment has of the far side's message.  Whether it has ended the stream there."""
        self.echo = newer(stamp_of(segment), self.echo)
        at = offset_of(segment.seq, self.remote_isn)
        length = segment.end - segment.payload_at
        if length and at < HELLO_LENGTH and at + length > 0:
            self.collected.add(at, segment.payload())
        return bool(segment.flags & FIN) and at + length == self.collected.edge

    def reset_in(self, segment: Segment) -> tuple[int, bool]:
        """A reset's number as our socket, which has no byte of this, is to see it; and whether it is exact."""
        distance = offset_of(segment.seq, self.remote_isn) - self.collected.edge
        return self.remote_isn + 1 + distance, not distance


def offset_of(seq: int, isn: int) -> int:
    """The signed distance of a sequence number from the first byte behind the SYN."""
    return unwrap(seq - isn - 1, 0)


def newer(one: int | None, other: int | None) -> int | None:
    """The newer of two timestamps (RFC 7323 section 5.2), as far as there are any."""
    if one is None or other is None:
        return other if one is None else one
    return one if (one - other) & MASK32 < 0x80000000 else other


def stamp_of(segment: Segment) -> int | None:
    """Its TSval."""
    found = timestamps(segment.options())
    return None if found is None else found[0]


def ours(
    template: bytes, seq: int, ack: int, payload: Buffer, window: int, stamps: tuple[int | None, int | None]
) -> bytes:
    """A segment of our own with the headers of `template`, one of our socket's; `stamps`: TSval and TSecr."""
    value, echo = stamps
    options = b"" if value is None else ONLY_TIMESTAMPS + pack("!II", value & MASK32, echo or 0)
    flags = ACK | PSH if len(payload) else ACK
    return rebuild(
        Segment(template), seq, ack, payload, flags=flags, window=min(window, 0xFFFF), options=options,
        identification_step=1,
    )  # fmt: skip


def with_echo(packet: bytes, echo: int) -> bytes:
    """The same packet with another TSecr, if it has one."""
    segment = Segment(packet)
    options = bytearray(segment.options())
    for kind, start, end in walk(options):
        if kind == TIMESTAMPS and end - start == 10:
            options[start + 6 : end] = echo.to_bytes(4, "big")
    return rebuild(segment, segment.seq, segment.ack, segment.payload(), options=bytes(options))
