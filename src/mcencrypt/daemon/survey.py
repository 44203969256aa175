"""Asking many peers at once, with probes, which network key they take and offer."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final, NamedTuple, Protocol

from mcencrypt.core.handshake import Carrier, NetworkSecret
from mcencrypt.core.probe import ProbeResult
from mcencrypt.daemon.interfaces import Timers
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
        self,
        address: str,
        port: int,
        secret: NetworkSecret,
        timeout: float,
        done: Callable[[ProbeResult], None],
        carrier: Carrier,
    ) -> None: ...


class Question(NamedTuple):
    """Which of these peers, by public key, answer with this network key, each at any of its targets?"""

    secret: NetworkSecret
    peers: Mapping[bytes, Sequence[Target]]


#: The answer of each peer that proved itself as the one that was asked.
Answers = Mapping[bytes, ProbeResult]


class Survey:
    """One question, put to many peers."""

    def __init__(self, prober: Asking, timers: Timers, question: Question, done: Callable[[Answers], None]) -> None:
        """`done` is called once; that may be at once, if there is nobody to ask."""
        self._prober, self._timers, self._secret, self._done = prober, timers, question.secret, done
        self._waiting = deque(
            (peer, target, Carrier.SYN) for peer, targets in question.peers.items() for target in targets
        )
        self._answers: dict[bytes, ProbeResult] = {}
        self._running = 0
        self._proceed()

    def _proceed(self) -> None:
        while self._waiting and self._running < AT_ONCE:
            peer, target, carrier = self._waiting.popleft()
            if peer in self._answers:
                continue
            try:
                ended = partial(self._ended, peer, target, carrier)
                self._prober.begin(*target, self._secret, PATIENCE, ended, carrier)
            except Busy:
                self._waiting.appendleft((peer, target, carrier))
                if not self._running:
                    self._timers.call_at(self._timers.now() + _BUSY_PAUSE, self._proceed)
                return
            except OperatorError:
                continue  # not to be reached from here, which is an answer too: none
            self._running += 1
        if not self._waiting and not self._running:
            self._done(self._answers)

    def _ended(self, peer: bytes, target: Target, carrier: Carrier, result: ProbeResult) -> None:
        self._running -= 1
        if carrier is Carrier.SYN and result.outcome in ("no-mcencrypt", "stripped"):
            self._waiting.append((peer, target, Carrier.STREAM))  # so a node answers that is behind a relay
        if result.outcome == "encrypted" and result.identity == peer:
            self._answers[peer] = result
        self._proceed()
