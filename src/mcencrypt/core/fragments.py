"""Pieces of records that wait for the rest.

A middlebox that cuts segments anew, or a sender whose path shrank, delivers records in pieces.  What is kept here is
ciphertext that nobody has vouched for, so the buffer is bounded, and forged bytes cost no more than their
place: when a record put together from pieces does not verify, its pieces go.
"""

from __future__ import annotations

from bisect import bisect_right
from operator import itemgetter
from typing import Final

from .packet import Buffer

_start = itemgetter(0)


class Pool:
    """Bytes that all flows together may leave waiting."""

    __slots__ = ("limit", "size")

    def __init__(self, limit: int = 32 << 20) -> None:
        self.limit = limit
        self.size = 0


class Fragments:
    """Wire bytes by offset; neighbours are joined, and of overlapping bytes the newer win."""

    __slots__ = ("_pieces", "_pool", "size")

    #: Bytes that one flow may leave waiting.
    LIMIT: Final = 2 << 20

    def __init__(self, pool: Pool | None = None) -> None:
        self._pool = pool or Pool()
        self._pieces: list[tuple[int, bytearray]] = []
        #: Bytes held.
        self.size = 0

    def __bool__(self) -> bool:
        return bool(self._pieces)

    def add(self, wire: int, data: Buffer) -> bool:
        """Keep `data` from wire offset `wire` on; False if the buffer is full.

        What lies further on gives way: the stream can do without it, but not without what comes first.
        """
        if not len(data):
            return True
        while not self._has_room(len(data)):
            if not self._pieces or self._pieces[-1][0] < wire + len(data):
                return False
            self._grow(-len(self._pieces.pop()[1]))
        self.drop(wire, wire + len(data))
        self._grow(len(data))
        index = bisect_right(self._pieces, wire, key=_start)
        if index and self._pieces[index - 1][0] + len(self._pieces[index - 1][1]) == wire:
            index -= 1
            self._pieces[index][1].extend(data)
        else:
            self._pieces.insert(index, (wire, bytearray(data)))
        start, piece = self._pieces[index]
        if index + 1 < len(self._pieces) and self._pieces[index + 1][0] == start + len(piece):
            piece.extend(self._pieces.pop(index + 1)[1])
        return True

    def around(self, wire: int) -> tuple[int, bytearray] | None:
        """(start, bytes) of the piece that holds offset `wire`."""
        index = bisect_right(self._pieces, wire, key=_start) - 1
        if index < 0:
            return None
        start, piece = self._pieces[index]
        return (start, piece) if wire < start + len(piece) else None

    def extend(self, wire: int, data: Buffer) -> tuple[int, bytearray] | None:
        """Add `data` to the piece that ends at offset `wire`: (start, bytes) of that piece.

        None, and nothing done, if there is no such piece, if more is kept behind it, or if the buffer is full.
        """
        index = bisect_right(self._pieces, wire, key=_start) - 1
        if index < 0 or not self._has_room(len(data)):
            return None
        start, piece = self._pieces[index]
        if start + len(piece) != wire:
            return None
        if index + 1 < len(self._pieces) and self._pieces[index + 1][0] <= wire + len(data):
            return None
        piece.extend(data)
        self._grow(len(data))
        return start, piece

    def drop(self, start: int, end: int) -> None:
        """Forget wire offsets [start, end)."""
        index = max(0, bisect_right(self._pieces, start, key=_start) - 1)
        while start < end and index < len(self._pieces) and self._pieces[index][0] < end:
            at, piece = self._pieces[index]
            stop = at + len(piece)
            if stop <= start:
                index += 1
                continue
            keep = []
            if at < start:
                keep.append((at, piece[: start - at]))
            if stop > end:
                keep.append((end, piece[end - at :]))
            self._pieces[index : index + 1] = keep
            self._grow(max(at, start) - min(stop, end))
            index += len(keep)

    def clear(self) -> None:
        """Forget everything."""
        self._pieces.clear()
        self._grow(-self.size)

    def _has_room(self, length: int) -> bool:
        return self.size + length <= self.LIMIT and self._pool.size + length <= self._pool.limit

    def _grow(self, length: int) -> None:
        self.size += length
        self._pool.size += length
