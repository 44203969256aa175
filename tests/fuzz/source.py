"""Bytes as decisions: what a target takes from its input, in order; behind its end all is zero."""

from __future__ import annotations


class Source:
    """An input, read from its start."""

    def __init__(self, data: bytes) -> None:
        # behind the end once that much was asked for
        self._data, self._size, self._at = data, len(data), 0

    def __bool__(self) -> bool:
        return self._at < self._size

    def take(self, count: int) -> bytes:
        """That many bytes, fewer at the end."""
        found = self._data[self._at : self._at + count]
        self._at += len(found)
        return found

    def number(self, size: int) -> int:
        """An unsigned number of `size` bytes."""
        at, self._at = self._at, self._at + size
        found = self._data[at : at + size]
        return int.from_bytes(found, "big") << 8 * (size - len(found))

    def byte(self) -> int:
        at, self._at = self._at, self._at + 1
        return self._data[at] if at < self._size else 0

    def near(self) -> int:
        """A distance: most often a small one, either way; now and then any of 32 bits."""
        word = self.number(2)
        if word & 0xF000 == 0xF000:
            return self.number(4)
        return (word & 0xFFF) - 0x800 if word & 0x8000 else word & 0x7F

    def part(self) -> bytes:
        """Bytes with their length in front, of one byte or, behind 255, of two."""
        length = self.byte()
        return self.take(self.number(2) if length == 255 else length)

    def rest(self) -> bytes:
        """All that is left."""
        return self.take(len(self._data))
