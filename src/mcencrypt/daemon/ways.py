"""By which way a connection's packets go: what socket, routes and the packet at hand say together."""

from __future__ import annotations

import time
from collections.abc import Callable

from mcencrypt.core.addresses import Ends, Path, is_link_local
from mcencrypt.kernel.handling import Handling, Handlings
from mcencrypt.kernel.routes import Routes
from mcencrypt.kernel.sockets import Sockets


def _none() -> int:
    return 0


class Ways:
    """What the core asks of the kernel about paths."""

    def __init__(self, sockets: Sockets, routes: Routes) -> None:
        self.handlings = Handlings(sockets.handling, routes.device)
        self._sockets, self._routes = sockets, routes
        #: The connection whose socket was looked at last, and what the kernel said of it.
        self._told_of = b""
        self._told: Handling | None = None
        #: Index of the device that the packet being decided came by, or leaves by; 0 where it did not, or does not.
        self.came_by: Callable[[], int] = _none
        self.leaves_by: Callable[[], int] = _none

    def path_of(self, key: bytes) -> Path:
        """The path of a connection's packets, by its key, ours first."""
        handling = self.handlings.of(key, time.monotonic(), self.leaves_by())
        return Path.of(key)._replace(way=handling._replace(priority=0), device=handling.interface)

    def look_ahead(self, key: bytes, seen: int) -> None:
        """Ask what will be asked in a moment of a connection of which a packet has just left by the device `seen`.

        Not of one whose socket is gone already: that costs a look at all of them, and any user can cause it.
        """
        told = self._told if self._told_of == key else self._look_at(key)
        self._told_of = b""
        if told is None:
            return
        path = Path.of(key)
        way = self.handlings.of(key, time.monotonic(), seen, told)._replace(priority=0)
        self._routes.mtu(path.peer, path.own, way)

    def route_mtu(self, path: Path) -> int:
        """MTU in bytes that the route of a path shows."""
        way = path.way
        if not isinstance(way, Handling):  # of a SYN, which no socket is behind as yet
            way = Handling(self.came_by() if is_link_local(path.peer) else 0)
        return self._routes.mtu(path.peer, path.own, way)

    def owner_of(self, key: bytes) -> int | None:
        """The user whose socket a connection is, by its key, ours first; None if there is none, or no answer."""
        told = self._look_at(key)
        return None if told is None else told.uid

    def _look_at(self, key: bytes) -> Handling | None:
        """What the kernel says of a connection's socket; kept for who asks of the same one next."""
        try:
            self._told = self._sockets.handling_lately(Ends.of(key))
        except OSError:
            self._told = None
        self._told_of = key
        return self._told
