"""How long a packet to a peer may be, and what our own kernel was told of it.

The route shows the path's MTU.  Once a packet of the local socket has no room for our overhead, the kernel is told an
MTU that is less by just that, which is what the route shows to everybody from then on: it must not be taken for the
path's own, or each connection to the peer would lower it once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .addresses import Path
from .record import OVERHEAD

#: Paths that are remembered.
CAPACITY: Final = 4096


class Paths:
    """The paths to all peers."""

    def __init__(self, route_mtu: Callable[[Path], int], path_of: Callable[[bytes], Path] = Path.of) -> None:
        """`route_mtu`: MTU in bytes that the route of a path shows. `path_of`: the path of a connection."""
        self._route_mtu, self.of = route_mtu, path_of
        self._told: dict[Path, int] = {}
        #: Grows when an answer given before may be wrong now.
        self.version = 0

    def shown(self, path: Path) -> int:
        """The MTU in bytes that the route shows, from which our kernel reckons its segments."""
        return self._route_mtu(path)

    def mtu(self, path: Path) -> int:
        """The path's MTU in bytes."""
        shown = self.shown(path)
        return shown + OVERHEAD if self._told and self._told.get(path) == shown else shown

    def lower(self, path: Path) -> int | None:
        """The MTU to tell our kernel for this path, so that our overhead fits; None if it knows."""
        self.version += 1
        shown = self.shown(path)
        if self._told.pop(path, None) == shown:
            self._told[path] = shown
            return None
        if len(self._told) >= CAPACITY:
            del self._told[next(iter(self._told))]
        self._told[path] = shown - OVERHEAD
        return shown - OVERHEAD
