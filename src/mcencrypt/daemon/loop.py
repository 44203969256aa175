"""One thread, one epoll: the queue, the control socket, the watchers and a few timers.

asyncio would do as well, and costs some 10 us per wakeup, which every packet of a ping-pong would pay.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import select
import signal
import socket
import time
from collections.abc import Callable
from typing import Protocol

log = logging.getLogger(__name__)


def _nothing() -> None:
    """What is to be done afterwards if nobody said."""


class Spare(Protocol):
    """Work for times when nothing else is to be done, in small pieces."""

    def wanting(self) -> bool:
        """Whether there is any."""

    def make(self) -> None:
        """Do a piece of it."""


def next_multiple(seconds: float, now: float) -> float:
    """The first time after `now` that is a multiple of `seconds`, however those are rounded."""
    return (math.floor(now / seconds + 1e-6) + 1) * seconds


def _readable(fd: int, seconds: float) -> bool:
    waiting = select.poll()
    waiting.register(fd, select.POLLIN)
    return bool(waiting.poll(None if seconds < 0 else int(seconds * 1000) + (seconds > 0)))


class Loop:
    """Calls back when descriptors are readable and when times come.  A callback that raises is logged, not fatal."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._readers: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._order = itertools.count()
        self._running = True
        #: Waits until this descriptor is readable, or for that many seconds (negative: for ever), and says whether it
        #: is. Who has something more urgent to do than all readers does it meanwhile.
        self.waiting: Callable[[int, float], bool] = _readable
        #: Called whenever callbacks have run, before the loop waits or ends, for what they left.
        self.afterwards: Callable[[], None] = _nothing
        #: What is done, piece by piece, when nothing else waits.
        self.spare: Spare | None = None
        self._on_signal: dict[int, Callable[[], None]] = {}
        self._signals, self._wakeup = socket.socketpair()
        for end in (self._signals, self._wakeup):
            end.setblocking(False)
        self.add_reader(self._signals.fileno(), self._read_signals)

    def now(self) -> float:
        """Seconds, monotonic: the clock of `call_at`."""
        return time.monotonic()

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None:
        """Call `callback` while `fd` is readable."""
        self._readers[fd] = callback
        self._epoll.register(fd, select.EPOLLIN)

    def remove_reader(self, fd: int, closed: bool = False) -> None:
        """`closed`: the descriptor is closed already, and epoll has forgotten it by itself."""
        if self._readers.pop(fd, None) is not None and not closed:
            self._epoll.unregister(fd)

    def call_at(self, when: float, callback: Callable[[], None]) -> None:
        """Call once at `when` (time.monotonic())."""
        heapq.heappush(self._timers, (when, next(self._order), callback))

    def call_every(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call again and again, whenever the clock shows a multiple of `seconds`.

        So all that comes every few whole seconds shares one wake-up. One that took longer is left out.
        """

        def again() -> None:
            try:
                callback()
            finally:
                self.call_at(next_multiple(seconds, time.monotonic()), again)

        self.call_at(next_multiple(seconds, time.monotonic()), again)

    def stop_on(self, *numbers: signal.Signals) -> None:
        """Let `run` return when one of these signals arrives."""
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        for number in numbers:
            signal.signal(number, lambda *_: self.stop())

    def call_on(self, number: signal.Signals, callback: Callable[[], None]) -> None:
        """Call when this signal has arrived, between other callbacks."""
        signal.set_wakeup_fd(self._wakeup.fileno(), warn_on_full_buffer=False)
        self._on_signal[number] = callback
        signal.signal(number, lambda *_: None)  # the number comes through the wakeup descriptor

    def stop(self) -> None:
        self._running = False

    def run(self) -> None:
        """Until `stop`."""
        poll, readers, timers = self._epoll.poll, self._readers, self._timers
        call = self._call
        epoll = self._epoll.fileno()
        while self._running:
            now = time.monotonic()
            while timers and timers[0][0] <= now:
                call(heapq.heappop(timers)[2])
            if not self._running:
                break
            call(self.afterwards)
            seconds = max(0.0, timers[0][0] - time.monotonic()) if timers else -1.0
            spare = self.spare
            wanted = spare is not None and spare.wanting()
            if self.waiting(epoll, 0.0 if wanted else seconds):
                for fd, _ in poll(0):
                    callback = readers.get(fd)
                    if callback is not None:
                        call(callback)
            elif wanted and spare is not None:
                call(self.afterwards)  # `waiting` may have had something more urgent to do
                call(spare.make)
        call(self.afterwards)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            log.exception("internal error; the daemon goes on")

    def _read_signals(self) -> None:
        for number in set(self._signals.recv(64)):
            callback = self._on_signal.get(number)
            if callback is not None:
                self._call(callback)
