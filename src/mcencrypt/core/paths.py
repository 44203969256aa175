"""How long a packet to a peer may be, and what our own kernel was told of it.

The route shows the path's MTU.  Once a packet of the local socket has no room for our overhead, the kernel is told an
MTU that is less by just that, which is what the route shows to everybody from then on: it must not be taken for the
path's own, or each connection to the peer would lower it once more.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .record import OVERHEAD

#: Peers that are remembered.
CAPACITY: Final = 4096


class Paths:
    """The paths to all peers."""

    def __init__(self, route_mtu: Callable[[bytes], int]) -> None:
        """`route_mtu`: MTU in bytes that the route to a packed address shows."""
        #: What the route shows, from which our kernel reckons its segments.
        self.shown = route_mtu
        self._told: dict[bytes, int] = {}

    def mtu(self, peer: bytes) -> int:
        """The MTU in bytes of the path to a packed address."""
        shown = self.shown(peer)
        return shown + OVERHEAD if self._told and self._told.get(peer) == shown else shown

    def lower(self, peer: bytes) -> int | None:
        """The MTU to tell our kernel for this peer, so that our overhead fits; None if it knows."""
        shown = self.shown(peer)
        if self._told.pop(peer, None) == shown:
            self._told[peer] = shown
            return None
        if len(self._told) >= CAPACITY:
            del self._told[next(iter(self._told))]
        self._told[peer] = shown - OVERHEAD
        return shown - OVERHEAD
