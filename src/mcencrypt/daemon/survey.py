"""Asking many peers at once, with probes, which network key they take and offer."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Final, Protocol

from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.probing import ProbeResult
from mcencrypt.errors import OperatorError

#: Probes of one survey that are under way at once; half of what the engine takes.
AT_ONCE: Final = 32
#: Seconds that each may take: a lost SYN is sent again after one.
PATIENCE: Final = 3.0
_BUSY_PAUSE: Final = 0.2

#: IP address and port.
Target = tuple[str, int]


class Busy(OperatorError):
    """Too many probes are under way."""


class Asking(Protocol):
    """What a survey needs of `Prober`."""

    def begin(
        self, address: str, port: int, secret: NetworkSecret, timeout: float, done: Callable[[ProbeResult], None]
    ) -> None: ...


class Timers(Protocol):
    """What a survey needs of `Loop`."""

    def call_at(self, when: float, callback: Callable[[], None]) -> None: ...


class Survey:
    """One key, tried on many peers, each at every place where it may listen."""

    def __init__(
        self,
        prober: Asking,
        timers: Timers,
        secret: NetworkSecret,
        peers: Mapping[bytes, list[Target]],
        done: Callable[[dict[bytes, ProbeResult]], None],
    ) -> None:
        """`peers`: by public key. `done` is called once with an answer for each peer that proved itself as that one.

        That may be at once, if there is nobody to ask.
        """
        self._prober, self._timers, self._secret, self._done = prober, timers, secret, done
        self._waiting = deque((peer, target) for peer, targets in peers.items() for target in targets)
        self._answers: dict[bytes, ProbeResult] = {}
        self._running = 0
        self._proceed()

    def _proceed(self) -> None:
        while self._waiting and self._running < AT_ONCE:
            peer, target = self._waiting.popleft()
            if peer in self._answers:
                continue
            try:
                self._prober.begin(*target, self._secret, PATIENCE, partial(self._ended, peer))
            except Busy:
                self._waiting.appendleft((peer, target))
                if not self._running:
                    self._timers.call_at(time.monotonic() + _BUSY_PAUSE, self._proceed)
                return
            except OperatorError:
                continue  # not to be reached from here, which is an answer too: none
            self._running += 1
        if not self._waiting and not self._running:
            self._done(self._answers)

    def _ended(self, peer: bytes, result: ProbeResult) -> None:
        self._running -= 1
        if result.outcome == "encrypted" and result.identity == peer:
            self._answers[peer] = result
        self._proceed()
