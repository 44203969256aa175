"""Pieces of records that wait for the rest.

A middlebox that cuts segments anew, or a sender whose path shrank, delivers records in pieces. What is kept here is
ciphertext that nobody has vouched for, so memory is bounded as it is really used, and forged bytes cost no more than
their place: when a record put together from pieces does not verify, its pieces go.

Bytes lie in pages, by wire offset; spans say which of them are there. So keeping, reading and forgetting bytes costs
what these bytes cost, however many others wait.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

import mcencrypt.core.prim as prim

from .packet import Buffer

_PAGE_BITS: Final = 11
PAGE: Final = 1 << _PAGE_BITS
#: Memory in bytes that a page really takes: a bytearray, its entry in a dictionary and the key. Measured with CPython
#: 3.11 to 3.13 (tests/unit/core/test_fragments.py measures again).
PAGE_MEMORY: Final = PAGE + 256
#: Memory in bytes of a span: two integers, and their places in two lists.
SPAN_MEMORY: Final = 96

#: Behind all wire offsets.
_BEYOND: Final = 1 << 62


class Pool:
    """Memory that the pieces of all flows together may take.

    When it is used up, the flow that holds most gives way to one that holds less than half as much: whoever fills many
    buffers cannot keep the others from theirs.
    """

    __slots__ = ("_by_size", "limit", "memory")

    def __init__(self, limit: int = 32 << 20) -> None:
        """`limit`: bytes."""
        self.limit = limit
        #: Bytes in use.
        self.memory = 0
        #: Who holds something, by the number of binary digits of how much.
        self._by_size: list[dict[Fragments, None]] = [{} for _ in range(64)]

    def make_room(self, asker: Fragments, memory: int) -> bool:
        """Whether `asker` may take so many bytes more; makes others give way, if they hold much more than that."""
        while self.memory + memory > self.limit:
            fattest = next((holder for group in reversed(self._by_size) for holder in group), None)
            if fattest is None or fattest.memory.bit_length() <= (asker.memory + memory).bit_length():
                return False
            fattest.halve()
        return True

    def changed(self, holder: Fragments, before: int) -> None:
        """A flow that held `before` bytes holds another amount now."""
        self.memory += holder.memory - before
        old, new = prim.digits(before), prim.digits(holder.memory)
        if old != new:
            self._by_size[old].pop(holder, None)
            if new:
                self._by_size[new][holder] = None


class Fragments:
    """Wire bytes of one flow by offset; of overlapping bytes the newer win."""

    __slots__ = ("_ends", "_pages", "_pool", "_starts", "limit", "memory")

    #: Memory in bytes that one flow may take.
    LIMIT: Final = 2 << 20

    def __init__(self, pool: Pool | None = None, limit: int = LIMIT) -> None:
        """`limit`: bytes of memory at most."""
        self._pool, self.limit = pool or Pool(), limit
        self._pages: dict[int, bytearray] = {}
        #: The spans [start, end) that are there, in order; neighbours are one span.
        self._starts: list[int] = []
        self._ends: list[int] = []
        #: Bytes of memory in use.
        self.memory = 0

    def __bool__(self) -> bool:
        return bool(self._starts)

    def add(self, wire: int, data: Buffer) -> bool:
        """Keep `data` from wire offset `wire` on; False if there is no room.

        What lies further on gives way: the stream can do without it, but not without what comes first.
        """
        end, at = wire + len(data), 0
        if end == wire:
            return True
        if not self._reserve(wire, end):
            return False
        pages = self._pages
        while wire < end:
            page, begin, count = pages[wire >> _PAGE_BITS], wire & PAGE - 1, min(PAGE - (wire & PAGE - 1), end - wire)
            page[begin : begin + count] = data[at : at + count]
            wire += count
            at += count
        return True

    def put(self, wire: int, packet: Buffer, at: int, length: int) -> bool:
        """The same for `length` bytes, one or more, at `at` of a packet."""
        end = wire + length
        if not self._reserve(wire, end):
            return False
        pages = self._pages
        while wire < end:
            begin = wire & PAGE - 1
            count = PAGE - begin if PAGE - begin < end - wire else end - wire
            prim.copy_into(pages[wire >> _PAGE_BITS], begin, packet, at, count)
            wire += count
            at += count
        return True

    def _reserve(self, wire: int, end: int) -> bool:
        """Enter [wire, end) as being there, with pages for it."""
        if not self._make_room(wire, end):
            return False
        starts, ends, pages = self._starts, self._ends, self._pages
        if not ends or wire > ends[-1]:  # mostly what comes next, behind all that waits
            starts.append(wire)
            ends.append(end)
        elif wire == ends[-1]:
            ends[-1] = end
        else:
            first, behind = bisect_left(ends, wire), bisect_right(starts, end)
            start, stop = wire, end
            if first < behind:
                start, stop = min(wire, starts[first]), max(end, ends[behind - 1])
            starts[first:behind], ends[first:behind] = (start,), (stop,)
        for number in range(wire >> _PAGE_BITS, (end - 1 >> _PAGE_BITS) + 1):
            if number not in pages:
                pages[number] = prim.room(PAGE)
        self._settle()
        return True

    def tail(self, wire: int) -> int:
        """How many bytes are there from offset `wire` on, if nothing lies behind them; -1 if something does."""
        ends = self._ends
        if not ends or ends[-1] <= wire:
            return 0
        return ends[-1] - wire if self._starts[-1] <= wire else -1

    def lead(self, reply: prim.Reply, start: int, end: int) -> bool:
        """Let the bytes [start, end), which must be there, be a reply's lead; False if they are too many."""
        prim.no_lead(reply)
        while start < end:
            begin = start & PAGE - 1
            count = PAGE - begin if PAGE - begin < end - start else end - start
            if not prim.add_lead(reply, self._pages[start >> _PAGE_BITS], begin, count):
                return False
            start += count
        return True

    def span(self, wire: int) -> tuple[int, int] | None:
        """The span [start, end) of bytes without a hole around offset `wire`; None if that byte is not there."""
        index = bisect_right(self._starts, wire) - 1
        if index < 0 or self._ends[index] <= wire:
            return None
        return self._starts[index], self._ends[index]

    def reach(self, wire: int) -> int:
        """Where the span around offset `wire` ends; -1 if that byte is not there."""
        starts, ends = self._starts, self._ends
        if not ends or wire >= ends[-1]:
            return -1
        index = bisect_right(starts, wire) - 1
        return ends[index] if index >= 0 and ends[index] > wire else -1

    def u16(self, wire: int) -> int:
        """The 16-bit number at offset `wire`, big-endian, which must be there."""
        at = wire & PAGE - 1
        high = self._pages[wire >> _PAGE_BITS][at]
        low = self._pages[wire + 1 >> _PAGE_BITS][at + 1 & PAGE - 1]
        return high << 8 | low

    def read(self, start: int, end: int) -> bytes:
        """The bytes [start, end), which must be there."""
        pieces = []
        while start < end:
            begin = start & PAGE - 1
            count = min(PAGE - begin, end - start)
            pieces.append(memoryview(self._pages[start >> _PAGE_BITS])[begin : begin + count])
            start += count
        return b"".join(pieces)

    def drop(self, start: int, end: int) -> None:
        """Forget offsets [start, end)."""
        if start >= end:
            return
        starts, ends = self._starts, self._ends
        first, behind = bisect_right(ends, start), bisect_left(starts, end)
        # From the last one on, so that those before keep their places. Mostly there is one, and all of it goes.
        for index in range(behind - 1, first - 1, -1):
            begin, stop = starts[index], ends[index]
            if begin < start:
                ends[index] = start
                if stop > end:
                    starts.insert(index + 1, end)
                    ends.insert(index + 1, stop)
                    stop = end
                begin = start
            elif stop > end:
                starts[index] = stop = end
            else:
                del starts[index], ends[index]
            for number in range(begin >> _PAGE_BITS, (stop - 1 >> _PAGE_BITS) + 1):
                if not self._touches(number):
                    self._pages.pop(number, None)
        self._settle()

    def clear(self) -> None:
        """Forget everything."""
        self._starts.clear()
        self._ends.clear()
        self._pages.clear()
        self._settle()

    def halve(self) -> None:
        """Forget what lies furthest on, until half of the memory is free."""
        wanted = self.memory // 2
        while self.memory > wanted:
            self._drop_last_page()

    def _make_room(self, wire: int, end: int) -> bool:
        pool, memory = self._pool, SPAN_MEMORY
        for number in range(wire >> _PAGE_BITS, (end - 1 >> _PAGE_BITS) + 1):
            if number not in self._pages:
                memory += PAGE_MEMORY
        while True:
            if self.memory + memory <= self.limit and (
                pool.memory + memory <= pool.limit or pool.make_room(self, memory)
            ):
                return True
            if not self._ends or self._ends[-1] - 1 >> _PAGE_BITS <= end - 1 >> _PAGE_BITS:
                return False
            self._drop_last_page()

    def _drop_last_page(self) -> None:
        self.drop(self._ends[-1] - 1 >> _PAGE_BITS << _PAGE_BITS, _BEYOND)

    def _touches(self, number: int) -> bool:
        """Whether any byte of a page is there."""
        starts, ends = self._starts, self._ends
        if not ends or ends[-1] <= number << _PAGE_BITS:
            return False
        index = bisect_right(ends, number << _PAGE_BITS)
        return starts[index] < number + 1 << _PAGE_BITS

    def _settle(self) -> None:
        before = self.memory
        self.memory = len(self._pages) * PAGE_MEMORY + len(self._starts) * SPAN_MEMORY
        if self.memory != before:
            self._pool.changed(self, before)
