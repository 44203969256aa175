"""Work that runs programs, one piece after the other, while packets go on: looks at the rules, and changes of them."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

from mcencrypt.daemon.interfaces import BeginJob, Job, Loop
from mcencrypt.errors import OperatorError
from mcencrypt.kernel import commands
from mcencrypt.kernel.commands import Steps
from mcencrypt.kernel.iptables import SECONDS

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Entry(NamedTuple):
    """What is to be done, and who wants to hear of it."""

    steps: Steps[Any]
    done: Callable[[Any], None]
    failed: Callable[[OperatorError], None]


class Jobs:
    """A line of pieces of work. Each has `SECONDS` from its own begin on."""

    def __init__(self, loop: Loop, begin: BeginJob = commands.Job) -> None:
        self._loop, self._begin = loop, begin
        self._waiting: deque[_Entry] = deque()
        self._current: _Entry | None = None
        self._job: Job | None = None
        self._watched: tuple[int, int] | None = None

    @property
    def idle(self) -> bool:
        """Whether nothing is under way."""
        return self._current is None

    def run(self, steps: Steps[T], done: Callable[[T], None], failed: Callable[[OperatorError], None]) -> None:
        """Do the steps when those before are done, and then call one of the two; perhaps before this returns."""
        self._waiting.append(_Entry(steps, done, failed))
        if self._current is None:
            self._next()

    def close(self) -> None:
        """Give up what is under way, and what waits."""
        for entry in self._waiting:
            entry.steps.close()
        self._waiting.clear()
        if self._job is not None:
            self._unwatch(closed=False)
            self._job.cancel()
            self._job = self._current = None

    def _next(self) -> None:
        while self._current is None and self._waiting:
            self._current = self._waiting.popleft()
            self._go_on()

    def _go_on(self) -> None:
        """Take the present piece as far as it goes."""
        entry, job = self._current, self._job
        if entry is None:
            return
        try:
            if job is None:
                job = self._job = self._begin(entry.steps, SECONDS)
            if not job.poll():
                self._watch(job)
                return
        except OperatorError as problem:
            self._end()
            entry.failed(problem)
        except Exception:
            log.exception("internal error; the daemon goes on")
            self._end()
            entry.failed(OperatorError("the daemon failed at this; its log says why"))
        else:
            self._end()
            entry.done(job.result)
        self._next()

    def _watch(self, job: Job) -> None:
        """Go on when the present command has ended, or has taken too long."""
        if self._watched is not None and self._watched[1] == job.begun:
            return
        self._unwatch()
        self._watched = job.fileno(), job.begun
        self._loop.add_reader(job.fileno(), self._go_on)
        self._loop.call_at(job.until, self._go_on)

    def _unwatch(self, closed: bool = True) -> None:
        if self._watched is not None:
            self._loop.remove_reader(self._watched[0], closed)
            self._watched = None

    def _end(self) -> None:
        self._unwatch()
        self._current = self._job = None
