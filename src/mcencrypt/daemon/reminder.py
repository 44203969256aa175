"""One timer for many deadlines: set for the next, and set anew when that one has come."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mcencrypt.daemon.interfaces import Timers


class Reminder:
    """Calls `tick` with the time whenever that which `next_time` tells has come; None: never."""

    def __init__(self, next_time: Callable[[], float | None], tick: Callable[[float], object], timers: Timers) -> None:
        self._next_time, self._tick, self._timers = next_time, tick, timers
        #: When the timer is due; None while there is none.
        self._due: float | None = None

    def wake(self) -> None:
        """Set the timer, unless one is set that comes in time."""
        at = self._next_time()
        if at is not None and (self._due is None or at < self._due):
            self._due = at
            self._timers.call_at(at, partial(self._come, at))

    def _come(self, due: float) -> None:
        if due != self._due:
            return  # one was set since that came earlier
        self._due = None
        self._tick(self._timers.now())
        self.wake()
