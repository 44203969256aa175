"""Which SYNs of an attempt carry message 1, and what paths have shown that bears on it.

The first, the second and every other one after that carry it. In between, the third on, they are bare, for paths that
drop SYNs with data: three seconds from the start, as timers double from one second on (RFC 6298). A bare SYN is for a
handshake in the stream; so bare ones go only where relays are, or where the attempt before had no answer at all. Where
a path has shown that bare ones are better, the order is the other way round, and nothing else changes. Where that is
only a doubt, since a handshake in the stream came to nothing behind a SYN with message 1, they go by turns, a bare one
first: a peer that has been switched on since answers the second.
"""

from __future__ import annotations

from typing import Final

from .addresses import peer_of
from .limits import make_room

#: Paths that are remembered: a peer's address and port. The longest unused go first.
CAPACITY: Final = 4096


class _Known:
    __slots__ = ("asked", "bare_first", "doubted", "silent")

    def __init__(self) -> None:
        #: Initial sequence number of an attempt that has had no SYN-ACK so far.
        self.asked: int | None = None
        #: The attempt before had none at all; bare SYNs are better here; and whether they are is to be tried.
        self.silent = self.bare_first = self.doubted = False


class SynPlan:
    """What is known of paths."""

    def __init__(self) -> None:
        self._known: dict[bytes, _Known] = {}

    def is_bare(self, key: bytes, isn: int, number: int, relayed: bool) -> bool:
        """Whether SYN `number` (from 1 on) of an attempt goes without message 1; `key`: ours first."""
        known = self._of(key)
        if number == 1:
            known.silent = known.asked is not None and known.asked != isn
            known.asked = isn
        if known.doubted:
            return number % 2 == 1
        if not (relayed or known.silent or known.bare_first):
            return False
        odd_one = number >= 3 and number % 2 == 1
        return odd_one != known.bare_first

    def answered(self, key: bytes) -> None:
        """A SYN-ACK has come."""
        known = self._known.get(_path(key))
        if known is not None:
            known.asked = None

    def prefer_bare(self, key: bytes) -> None:
        """A bare SYN was answered, and the handshake succeeded in the stream; or data in a SYN was taken for data."""
        known = self._of(key)
        known.bare_first, known.doubted = True, False

    def doubt(self, key: bytes) -> None:
        """A handshake in the stream came to nothing behind a SYN with message 1, which may have been taken for data."""
        known = self._of(key)
        known.doubted = not known.bare_first

    def prefer_data(self, key: bytes) -> None:
        """Message 1 in a SYN was answered."""
        known = self._known.get(_path(key))
        if known is not None:
            known.bare_first = known.doubted = False

    def _of(self, key: bytes) -> _Known:
        path = _path(key)
        known = self._known.pop(path, None) or _Known()
        make_room(self._known, CAPACITY)
        self._known[path] = known
        return known


def _path(key: bytes) -> bytes:
    return peer_of(key) + key[-2:]
