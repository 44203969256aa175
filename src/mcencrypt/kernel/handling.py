"""How the kernel handles a connection's packets, besides what stands in them.

Packets of our own are to be handled alike, and so are questions about their route.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, NamedTuple

from mcencrypt.core.addresses import Ends, is_link_local
from mcencrypt.core.limits import make_room

#: Connections that are remembered; the oldest go first.
CAPACITY: Final = 16384
#: Seconds for which an answer is used without asking again.
FRESH: Final = 2.0


class Handling(NamedTuple):
    """What decides on routes and queues; each 0 where nothing was said."""

    #: Index of a device: that of a bound socket, or of the route that was found.
    interface: int = 0
    #: SO_MARK.
    mark: int = 0
    #: SO_PRIORITY.
    priority: int = 0
    #: User whose socket it is.
    uid: int = 0
    #: IP_TOS or IPV6_TCLASS.
    traffic_class: int = 0


#: What packets are that nothing was said of.
ANYHOW: Final = Handling()


class _Known(NamedTuple):
    handling: Handling
    #: When the kernel was asked; seconds, monotonic.
    asked: float
    #: Index of the device by which a packet of the connection was seen to leave; 0 if none was.
    seen: int = 0


class Handlings:
    """What is known of connections, by key, ours first.

    Answers are kept for a moment, and the last one for longer: a reset mostly follows when the socket is gone.
    """

    def __init__(self, socket: Callable[[Ends], Handling | None], device: Callable[[Ends, Handling], int]) -> None:
        """`socket` asks the kernel's socket, None if there is none, and `device` its routes, 0 if there is none.

        Either may raise OSError.
        """
        self._socket, self._device = socket, device
        self._known: dict[bytes, _Known] = {}

    def of(self, key: bytes, now: float, seen: int = 0, told: Handling | None = None) -> Handling:
        """How this connection's packets are handled, or were last; `now` in seconds, monotonic.

        `seen`: the device by which one of them is just leaving, if that is known. Of equal routes the kernel takes one
        by a hash that nobody else can be sure of. `told`: what the kernel's socket has just said, if it was asked.
        """
        known = self._known.get(key)
        if known is not None and now - known.asked < FRESH and seen in (0, known.seen):
            return known.handling
        if known is not None and not seen:
            seen = known.seen
        try:
            handling = self._ask(Ends.of(key), known, seen, told)
        except OSError:  # the kernel did not answer: what it said before still is the best guess
            handling = known.handling if known else ANYHOW
        self._known.pop(key, None)
        make_room(self._known, CAPACITY)
        self._known[key] = _Known(handling, now, seen)
        return handling

    def _ask(self, ends: Ends, known: _Known | None, seen: int, told: Handling | None) -> Handling:
        if told is None:
            told = self._socket(ends)
        if told is None:
            if known is not None:
                return known.handling
            told = ANYHOW
        if is_link_local(ends.remote):
            return told  # each link has a route there, and only the socket knows which is meant
        return told._replace(interface=seen or self._device(ends, told) or told.interface)

    def grow_old(self) -> None:
        """Routes have changed: ask again, but keep what was known in case there is no answer."""
        self._known = {key: _Known(known.handling, float("-inf")) for key, known in self._known.items()}
