"""What was learnt of paths, and told the kernel, kept for the next daemon: the kernel remembers it as well.

One that did not know would take what its predecessor had told the kernel for the own MTU of the path, and tell it less.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path as File
from struct import Struct
from typing import Final

from mcencrypt.core.addresses import Place
from mcencrypt.core.paths import CAPACITY, LOWEST_IPV4, REMEMBERED, News
from mcencrypt.daemon.mapped import map_file

FILE_NAME: Final = "paths"
# Length of the address, peer, device; what the path takes, what was told; when that expires.
_slot = Struct("=B16sIHHd")
_SLOT: Final = 64
_SIZE: Final = CAPACITY * _SLOT


class Learnt:
    """The file of this process."""

    def __init__(self, run_dir: File) -> None:
        """Raises OperatorError."""
        self._map = map_file(run_dir / FILE_NAME, _SIZE)
        self._slots: dict[Place, int] = {}
        self._free = list(range(CAPACITY - 1, -1, -1))

    def remains(self, now: float) -> list[tuple[Place, News]]:
        """What an earlier process left and the kernel still knows, the oldest news first; the file is ours from now on.

        `now` in seconds, monotonic: that clock runs on from one process to the next, and begins anew with the kernel.
        """
        found = [(place, news) for place, news in _read(self._map) if now < news.expires <= now + REMEMBERED]
        found.sort(key=lambda one: one[1].expires)
        self._map[:] = bytes(_SIZE)
        for place, news in found:
            self.on_news(place, news)
        return found

    def on_news(self, place: Place, news: News) -> None:
        """Keep this."""
        slot = self._slots.pop(place, None)
        if slot is None:
            slot = self._free.pop() if self._free else self._slots.pop(next(iter(self._slots)))
        self._slots[place] = slot
        length = len(place.peer)
        _slot.pack_into(self._map, slot * _SLOT, length, place.peer, place.device, news.path, news.told, news.expires)

    def close(self) -> None:
        """Leave the file as it is: whoever starts next needs it."""
        self._map.close()


def _read(table: mmap.mmap) -> Iterator[tuple[Place, News]]:
    for at in range(0, _SIZE, _SLOT):
        length, peer, device, mtu, told, expires = _slot.unpack_from(table, at)
        if length in (4, 16) and LOWEST_IPV4 <= told <= mtu:
            yield Place(peer[:length], device), News(mtu, told, expires)
