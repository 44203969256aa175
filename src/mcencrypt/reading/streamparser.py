"""What one direction of a connection looks like on the wire, told apart without keys.

Handshake message, then records whose headers count up the plain offset: 32 bits that have to fit at every
record, which no other protocol does by chance. What is inside a record stays closed: that it was really
encrypted is for the daemons' keys to prove, not for this reader.
"""

from __future__ import annotations

import enum
import re
import struct
from collections.abc import Callable
from typing import NamedTuple

from mcencrypt.core.handshake import CLEAR_LENGTH, MAGIC
from mcencrypt.core.record import FINAL, HEADER, LENGTH_MASK, OVERHEAD

_KEY_ID = slice(6, CLEAR_LENGTH)
MASK = 0xFFFFFFFF
#: Bytes without a record in sight before a direction counts as no longer understood: four of the longest.
SEARCH_LIMIT = 128 * 1024
#: Searches in vain per direction, which bounds the work that a capture full of gaps can cause.
MAX_SEARCHES = 64
#: As many bytes in a row may hold no two headers one after the other: the end of a record and most of the next.
_BETWEEN = 2 * (OVERHEAD + LENGTH_MASK) + HEADER - 1
_MESSAGE_LIMIT = 1024 * 1024  # bytes not understood in which a plaintext message is looked for

_HEADER = struct.Struct("!HI")
_COMMANDS = (
    b"version verack verackack addr inv getdata notfound getblocks getheaders tx block headers getaddr "
    b"mempool ping pong alert reject filterload filteradd filterclear merkleblock sendheaders sendcmpct "
    b"cmpctblock feefilter offchain"
).split()
# Bitcoin's message header: 4 bytes that name the network, the command padded with NULs to 12.
_MESSAGE = re.compile(b"|".join(word.ljust(12, b"\0") for word in _COMMANDS))


class Greeting(NamedTuple):
    """The clear part of a handshake message."""

    version: int
    #: 1: in the SYN, 2: in the SYN-ACK; 3 and 4: at the beginning of the streams.
    kind: int
    key_id: bytes
    length: int


class Record(NamedTuple):
    """One record. Offsets and lengths in bytes."""

    #: Offset of its header in wire space.
    wire: int
    #: Of its plaintext; on the wire it is `OVERHEAD` longer.
    length: int
    #: Offset of its plaintext in plain space; modulo 2^32 if the start of the direction was not seen.
    plain: int
    final: bool


class Finding(enum.Enum):
    """Bytes that are neither handshake nor record."""

    PLAINTEXT = "PLAINTEXT"
    UNKNOWN = "not understood"
    #: The end of a record, most likely, whose start was not captured.
    HEAD = "before the first record found"
    GAP = "not in the capture"
    INCOMPLETE = "incomplete record"


class Piece(NamedTuple):
    """A stretch of the wire that is no record."""

    finding: Finding
    wire: int
    size: int
    detail: str


def parse_greeting(payload: bytes) -> Greeting | None:
    """The handshake message in a SYN's or SYN-ACK's payload, None if it is none."""
    if len(payload) < CLEAR_LENGTH or not payload.startswith(MAGIC):
        return None
    return Greeting(payload[4], payload[5], bytes(payload[_KEY_ID]), len(payload))


def find_message(data: bytes) -> tuple[int, str] | None:
    """Where in `data` a plaintext message in Bitcoin's (and MultiChain's) framing starts, and its command."""
    match = _MESSAGE.search(data, 4)
    if match is None:
        return None
    return match.start() - 4, match.group().rstrip(b"\0").decode()


class _State(enum.Enum):
    SYNCED = enum.auto()
    SEARCHING = enum.auto()
    GIVEN_UP = enum.auto()


class StreamParser:
    """Names the bytes of one direction, given in order.

    `start` is the wire offset of the first byte to come, and `plain` the plain offset that belongs there: None if it is
    not known (the capture began in mid-stream), and then a record boundary is searched for. Without `encrypted` there
    was no handshake, so nothing can be a record. `on_record` is called for each whole record, `on_piece` for every
    other stretch.
    """

    def __init__(
        self,
        start: int,
        plain: int | None,
        on_record: Callable[[Record], None],
        on_piece: Callable[[Piece], None],
        *,
        encrypted: bool = True,
    ) -> None:
        self.offset = start
        self._on_record = on_record
        self._on_piece = on_piece
        self._plain = plain or 0
        self._encrypted = encrypted
        if not encrypted:
            self._state = _State.GIVEN_UP
        else:
            self._state = _State.SEARCHING if plain is None else _State.SYNCED
        # SEARCHING: the next plain offset is at most this far from _plain
        self._range: int | None = None
        self._head = b""  # SYNCED: the first bytes of a header; SEARCHING: all that was searched
        self._try = 0  # SEARCHING: where in _head a record may start
        self._left = 0  # bytes of the current record still to come
        self._hole = 0  # bytes of the current record that cannot be had
        self._current = Record(0, 0, 0, False)
        self._ended = False  # FINAL was seen
        self._understood = False  # a whole record was seen
        #: Pieces seen before the first record, while it is open whether they are the ends of others; None once decided.
        self._early: list[Piece] | None = []
        self._searches = 0
        self._torn = plain is None  # SEARCHING: because something is missing, not because something did not fit
        self._message = ""  # GIVEN_UP: command of the plaintext message that was seen
        self._examined = 0  # GIVEN_UP: bytes in which one was looked for

    def feed(self, data: bytes) -> None:
        """The next bytes of the stream, one segment's payload at a time: records start where segments do."""
        self.offset += len(data)
        if self._state is _State.SYNCED:
            self._records(data)
        elif self._state is _State.SEARCHING:
            self._search(data)
        else:
            self._give_up(data)

    def gap(self, count: int) -> None:
        """`count` bytes that cannot be had."""
        if self._state is _State.SYNCED and self._left >= count:
            # The header says where the next record starts: nothing to search for.
            self._hole += count
            self._report(Finding.GAP, self.offset, count)
            self.offset += count
            self._left -= count
            self._finish_record()
            return
        self._flush()
        self._torn = True
        self._report(Finding.GAP, self.offset, count)
        self.offset += count
        if self._state is _State.SYNCED:
            self._range = count
        elif self._range is not None:
            self._range += count
        self._lose()

    def end(self) -> None:
        """No more bytes will come."""
        self._flush()
        self._decide()

    def _records(self, data: bytes) -> None:
        position = 0
        if self._left:
            position = min(self._left, len(data))
            self._left -= position
            self._finish_record()
        elif self._head:
            data, self._head = self._head + data, b""
        size = len(data)
        base = self.offset - size
        while size - position >= HEADER:
            word, plain = _HEADER.unpack_from(data, position)
            if plain != self._plain & MASK or self._ended:
                self._unexpected(data[position:])
                return
            length = word & LENGTH_MASK
            record = Record(base + position, length, self._plain, word >= FINAL)
            self._plain += length
            self._ended = record.final
            position += OVERHEAD + length
            if position > size:
                self._current, self._left = record, position - size
                return
            self._whole(record)
        self._head = data[position:]

    def _finish_record(self) -> None:
        if self._left:
            return
        if self._hole:
            count = OVERHEAD + self._current.length - self._hole
            self._report(Finding.INCOMPLETE, self._current.wire, count, "its middle is not in the capture")
            self._hole = 0
            return
        self._whole(self._current)

    def _whole(self, record: Record) -> None:
        if not self._understood:
            self._understood = True
            self._decide()
        self._on_record(record)

    def _unexpected(self, data: bytes) -> None:
        """`data` ends at the current offset and does not start with the record that had to come."""
        self._range = None
        self._torn = False
        self._lose()
        if self._ended:
            self._state = _State.GIVEN_UP
            self._give_up(data)
        elif (found := find_message(data[:64])) and not found[0]:
            self._state, self._message = _State.GIVEN_UP, found[1]
            self._give_up(data)
        elif self._state is _State.GIVEN_UP:
            # searched in vain too often
            self._give_up(data)
        else:
            self._search(data)

    def _lose(self) -> None:
        self._head, self._try, self._left, self._hole = b"", 0, 0, 0
        if self._message or not self._encrypted:
            return
        self._searches += 1
        self._state = _State.SEARCHING if self._searches <= MAX_SEARCHES else _State.GIVEN_UP

    def _search(self, data: bytes) -> None:
        """Look for two headers in a row that fit; one is enough where the plain offset is known roughly."""
        begin = len(self._head)
        self._head += data
        fits = self._chain(self._try)
        if fits is None and self._try != begin:
            self._try = begin
            fits = self._chain(begin)
        if fits is None:
            self._try = len(self._head)
        if fits:
            # Only searches that find nothing cost more than the bytes they look at.
            self._searches -= 1
            self._resume(self._try)
        elif len(self._head) >= SEARCH_LIMIT:
            self._last_resort()

    def _chain(self, start: int) -> bool | None:
        """Whether records start at `start` of the searched bytes: True, None (no), False (not known yet)."""
        data, position, proven = self._head, start, 0
        expected: int | None = None
        while len(data) - position >= HEADER:
            word, plain = _HEADER.unpack_from(data, position)
            if expected is not None:
                if plain != expected:
                    return None
                proven += 1
            elif self._range is not None:
                if (plain - self._plain) & MASK > self._range:
                    return None
                proven += 1
            if proven:
                return True
            expected = (plain + (word & LENGTH_MASK)) & MASK
            position += OVERHEAD + (word & LENGTH_MASK)
            if word >= FINAL:
                return position == len(data) or None
        return False

    def _last_resort(self) -> None:
        """No segment starts with a record: try every byte, then give the direction up until the next gap."""
        data = self._head
        found = find_message(data)
        if found is None:
            for start in range(len(data) - HEADER):
                word, plain = _HEADER.unpack_from(data, start)
                follow = start + OVERHEAD + (word & LENGTH_MASK)
                if word < FINAL and follow + HEADER <= len(data):
                    expected = (plain + word) & MASK
                    if int.from_bytes(data[follow + 2 : follow + 6], "big") == expected:
                        self._resume(start)
                        return
        if found is None and self._torn and len(data) < _BETWEEN and (self._understood or self._early is not None):
            # If there are records elsewhere, this is the end of one, and perhaps the beginning of another.
            self._report(Finding.HEAD, self.offset - len(data), len(data))
            self._head = b""
            return
        self._head, self._state, self._range = b"", _State.GIVEN_UP, None
        self._message = found[1] if found else ""
        self._give_up(data)

    def _resume(self, start: int) -> None:
        """Records start at `start` of the searched bytes."""
        data, self._head = self._head, b""
        if start:
            wire = self.offset - len(data)
            if found := find_message(data[:start]):
                self._report(Finding.PLAINTEXT, wire, start, f"MultiChain/Bitcoin message {found[1]!r}")
            elif self._torn:
                self._report(Finding.HEAD, wire, start)
            else:
                self._report(Finding.UNKNOWN, wire, start, "before the first record found")
        plain = _HEADER.unpack_from(data, start)[1]
        self._plain = plain if self._range is None else self._plain + ((plain - self._plain) & MASK)
        self._state, self._try, self._range = _State.SYNCED, 0, None
        self._records(data[start:])

    def _give_up(self, data: bytes) -> None:
        if not self._message and self._examined < _MESSAGE_LIMIT:
            self._examined += len(data)
            if found := find_message(data):
                self._message = found[1]
        wire = self.offset - len(data)
        if self._message:
            detail = f"MultiChain/Bitcoin message {self._message!r}"
            self._report(Finding.PLAINTEXT, wire, len(data), detail)
        elif self._ended:
            self._report(Finding.UNKNOWN, wire, len(data), "after FINAL")
        else:
            self._report(Finding.UNKNOWN, wire, len(data), f"{data[:16].hex()}...")

    def _flush(self) -> None:
        """Account for what is held back."""
        if self._state is _State.SYNCED:
            if self._left:
                wire = self._current.wire
                whole = OVERHEAD + self._current.length
                self._report(Finding.INCOMPLETE, wire, self.offset - wire - self._hole, f"of {whole} bytes")
            elif self._head:
                size, expected = len(self._head), _HEADER.pack(0, self._plain & MASK)
                fits = self._head[2:] == expected[2:size]
                finding = Finding.INCOMPLETE if fits else Finding.UNKNOWN
                self._report(finding, self.offset - size, size, "less than a header")
        elif self._state is _State.SEARCHING and self._head:
            if self._single():
                self._resume(self._try)
                self._flush()
            else:
                self._last_resort()
                self._flush()
        self._left, self._head, self._hole = 0, b"", 0

    def _single(self) -> bool:
        """Whether what was searched ends with exactly one record whose start is also a segment's."""
        if len(self._head) - self._try < OVERHEAD:
            return False
        word = _HEADER.unpack_from(self._head, self._try)[0]
        return bool(self._try + OVERHEAD + (word & LENGTH_MASK) == len(self._head))

    def _decide(self) -> None:
        """Say what was seen early: ends of records, if there are records at all."""
        early, self._early = self._early, None
        for piece in early or ():
            if piece.finding is Finding.HEAD and not self._understood:
                piece = piece._replace(finding=Finding.UNKNOWN, detail="no record in sight")
            self._on_piece(piece)

    def _report(self, finding: Finding, wire: int, count: int, detail: str = "") -> None:
        if not count:
            return
        piece = Piece(finding, wire, count, detail)
        if self._early is None:
            self._on_piece(piece)
            return
        self._early.append(piece)
        if len(self._early) > MAX_SEARCHES:
            self._decide()
