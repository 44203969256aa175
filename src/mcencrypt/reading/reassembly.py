"""One direction of a TCP connection put together again from captured segments, and read by a `StreamParser`.

A passive reader: what it holds per direction is bounded, what was not captured becomes a gap once the other
side has acknowledged it, and nothing after a SYN without a handshake message is taken for a record.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable
from typing import NamedTuple

from mcencrypt.core.handshake import HELLO_LENGTH, MAGIC, VERSION, Carrier
from mcencrypt.reading.streamparser import (
    MASK,
    Finding,
    Greeting,
    Piece,
    Record,
    StreamParser,
    parse_greeting,
)

#: Bytes of one direction kept while something before them is missing.
MAX_HELD = 16 * 1024 * 1024
#: Bytes kept before something that was acknowledged, but not captured, is given up.
MAX_PATIENCE = 256 * 1024
#: Bytes of one direction kept to compare retransmissions with.
MAX_REMEMBERED = 256 * 1024
#: Runs of records and other pieces kept per direction for the report.
MAX_LISTED = 12
_HALF = 1 << 31


class Memory:
    """Bytes held by all directions of a reader together: with `limit` reached, holes are given up early."""

    def __init__(self, limit: int | None = None) -> None:
        self.limit = limit
        self.used = 0

    @property
    def full(self) -> bool:
        return self.limit is not None and self.used > self.limit


class Run(NamedTuple):
    """Records of one length in a row."""

    wire: int
    plain: int
    records: int
    length: int
    final: bool


#: Kinds of handshake messages that a stream begins with.
IN_STREAM = (Carrier.STREAM.message_1, Carrier.STREAM.message_2)


class Half:
    """One direction of a connection."""

    def __init__(self, name: str, on_record: Callable[[Record], None] | None, memory: Memory | None = None) -> None:
        self.name = name
        self._memory = memory or Memory()
        self.started = False
        #: Sequence number of the SYN; None if the SYN is not in the capture.
        self.initial: int | None = None
        self.greeting: Greeting | None = None
        self.records = self.plain = self.bytes = 0
        self.found: dict[Finding, int] = dict.fromkeys(Finding, 0)
        self.retransmitted = self.altered = self.stray = 0
        self.final = self.fin = self.reset = False
        #: It sent something, be it an acknowledgement; resets do not count.
        self.spoke = False
        self.listed: list[Run | Piece] = []
        self.unlisted = 0
        self._on_record = on_record
        self._parser: StreamParser | None = None
        #: The first bytes of the stream while they may become a handshake message.
        self._begun = b""
        self._base = 0  # sequence number of offset 0
        self._next = 0
        self._acknowledged = 0
        self._held: list[tuple[int, int, bytes]] = []
        self._held_bytes = 0
        self._remembered: deque[tuple[int, bytes]] = deque()
        self._remembered_bytes = 0

    @property
    def missing(self) -> int:
        """Bytes that were not captured, or that came before the first boundary of a record was found."""
        return self.found[Finding.GAP] + self.found[Finding.HEAD]

    @property
    def foreign(self) -> int:
        """Bytes that are neither handshake nor record, and retransmitted ones that differ from the first."""
        return self.found[Finding.PLAINTEXT] + self.found[Finding.UNKNOWN] + self.altered + self.stray

    @property
    def silent(self) -> bool:
        """Whether no data came, in order or not."""
        return not (self.bytes or self._held)

    def open(self, sequence: int, payload: bytes) -> None:
        """The SYN, with its payload."""
        if self.started and sequence == self.initial:
            if payload and self.greeting is None and not self._next:
                self._greet(payload)
            elif payload:
                self.data(1, payload, sequence)
            return
        if self.started and (self.initial is None or self._parser is not None):
            return
        self.started, self.initial, self.greeting = True, sequence, None
        self._next, self._acknowledged = 0, 0
        self._base = (sequence + 1) & MASK
        self._greet(payload)

    def _greet(self, payload: bytes) -> None:
        greeting = parse_greeting(payload)
        if greeting is not None and greeting.version == VERSION and len(payload) == HELLO_LENGTH:
            self.greeting = greeting
            self._next = len(payload)
            self._remember(0, payload)
        elif payload:
            self.data(1, payload, self._base - 1)

    def decline(self) -> None:
        """The other side did not take the handshake message, so the stream begins in its place."""
        if self.greeting is not None and self._parser is None:
            self.greeting = None
            self._next = 0
            self._forget()

    def offset_of(self, sequence: int) -> int:
        """A sequence number as an offset from the SYN: the one nearest to where the stream is."""
        delta = (sequence - self._base - self._next) & MASK
        return self._next + delta - (MASK + 1 if delta >= _HALF else 0)

    def acknowledge(self, number: int) -> None:
        """The other side has everything before `number`."""
        if self.started:
            offset = self.offset_of(number)
            if self._acknowledged < offset < self._next + MAX_HELD * 64:
                self._acknowledged = offset

    def data(self, skip: int, payload: bytes, sequence: int) -> None:
        """A segment's payload; `skip` is 1 if `sequence` is a SYN's."""
        if not self.started:
            self.started, self._base = True, sequence
        offset = self.offset_of((sequence + skip) & MASK)
        end = offset + len(payload)
        if end <= 0 and self.initial is None:
            self.retransmitted += len(payload)
            return
        if offset > self._next + MAX_HELD * 64 or end < 0:
            self.stray += len(payload)
            return
        if offset < self._next:
            repeated = payload[: self._next - offset]
            if self._parser is None and self.greeting and not offset and not self._same(offset, repeated):
                self.decline()
                self.data(skip, payload, sequence)
                return
            # One byte before the edge is a keepalive or a window probe; its value means nothing.
            if not (len(payload) == 1 and end == self._next):
                self.retransmitted += len(repeated)
                if not self._same(offset, repeated):
                    self.altered += len(repeated)
        if end > self._next:
            if offset > self._next:
                heapq.heappush(self._held, (offset, len(self._held), payload))
                self._held_bytes += len(payload)
                self._memory.used += len(payload)
            else:
                self._deliver(payload[self._next - offset :])
        self._settle()

    def close(self) -> None:
        """The capture or the connection is over: account for all that is held."""
        while self._held:
            self._skip_hole()
        self._forget()
        # The FIN counts one; if it is not in the capture, one byte too many may be it.
        missing = self._acknowledged - self._next - 1
        if missing > 0 and self.started:
            self._parse().gap(missing)
        if self._begun:
            self._end_beginning()
        if self._parser is not None:
            self._parser.end()

    def _settle(self) -> None:
        self._drain()
        while self._held and (
            self._held_bytes > MAX_HELD
            or self._memory.full
            or (self._held_bytes > MAX_PATIENCE and self._acknowledged >= self._held[0][0])
        ):
            self._skip_hole()

    def _skip_hole(self) -> None:
        offset = self._held[0][0]
        if offset > self._next:
            self._parse().gap(offset - self._next)
            self._next = offset
            self._forget()
        self._drain()

    def _drain(self) -> None:
        while self._held and self._held[0][0] <= self._next:
            offset, _, payload = heapq.heappop(self._held)
            self._held_bytes -= len(payload)
            self._memory.used -= len(payload)
            self._deliver(payload[self._next - offset :])

    def _deliver(self, payload: bytes) -> None:
        if not payload:
            return
        if self._parser is None and self.initial is not None and self.greeting is None:
            self._begin(payload)
            return
        parser = self._parse()
        self._remember(self._next, payload)
        self._next += len(payload)
        self.bytes += len(payload)
        parser.feed(payload)

    def _begin(self, payload: bytes) -> None:
        """Bytes from the start of the stream, where the SYN had no handshake message: it may stand here."""
        self._remember(self._next, payload)
        self._next += len(payload)
        self._begun += payload
        if len(self._begun) < HELLO_LENGTH and self._begun[: len(MAGIC)] == MAGIC[: len(self._begun)]:
            return
        greeting = parse_greeting(self._begun[:HELLO_LENGTH])
        if greeting is not None and greeting.version == VERSION and greeting.kind in IN_STREAM:
            self.greeting, self._begun = greeting, self._begun[HELLO_LENGTH:]
        self._end_beginning()

    def _end_beginning(self) -> None:
        """Whatever has begun, and is no handshake message, is what the stream begins with."""
        begun, self._begun = self._begun, b""
        parser = self._parse(self._next - len(begun))
        self.bytes += len(begun)
        if begun:
            parser.feed(begun)

    def _parse(self, start: int | None = None) -> StreamParser:
        if self._begun:
            self._end_beginning()
        if self._parser is None:
            start = self._next if start is None else start
            plain = None if self.initial is None else 0
            encrypted = self.initial is None or self.greeting is not None
            self._parser = StreamParser(start, plain, self._record, self._piece, encrypted=encrypted)
        return self._parser

    def _remember(self, offset: int, payload: bytes) -> None:
        self._remembered.append((offset, payload))
        self._remembered_bytes += len(payload)
        self._memory.used += len(payload)
        while self._remembered and (
            self._memory.full or (self._remembered_bytes > MAX_REMEMBERED and len(self._remembered) > 1)
        ):
            self._unremember(len(self._remembered.popleft()[1]))

    def _unremember(self, count: int) -> None:
        self._remembered_bytes -= count
        self._memory.used -= count

    def _forget(self) -> None:
        self._remembered.clear()
        self._unremember(self._remembered_bytes)

    def _same(self, offset: int, payload: bytes) -> bool:
        """Whether `payload` repeats what was seen at `offset`, as far as that is remembered."""
        end = offset + len(payload)
        for start, old in reversed(self._remembered):
            if start + len(old) <= offset:
                break
            low, high = max(start, offset), min(start + len(old), end)
            if low < high and old[low - start : high - start] != payload[low - offset : high - offset]:
                return False
        return True

    def _record(self, record: Record) -> None:
        self.records += 1
        self.plain += record.length
        self.final = self.final or record.final
        if self._on_record is not None:
            self._on_record(record)
        last = self.listed[-1] if self.listed else None
        if isinstance(last, Run) and last.length == record.length and not record.final:
            self.listed[-1] = last._replace(records=last.records + 1)
        else:
            self._list(Run(record.wire, record.plain, 1, record.length, record.final))

    def _piece(self, piece: Piece) -> None:
        self.found[piece.finding] += piece.size
        last = self.listed[-1] if self.listed else None
        if isinstance(last, Piece) and last.finding is piece.finding and last.wire + last.size == piece.wire:
            self.listed[-1] = last._replace(size=last.size + piece.size)
        else:
            self._list(piece)

    def _list(self, entry: Run | Piece) -> None:
        # The last entry stays, for what follows may extend it.
        if len(self.listed) < MAX_LISTED:
            self.listed.append(entry)
        else:
            self.unlisted += 1
            self.listed[-1] = entry
