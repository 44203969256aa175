"""How often something may be done, and how much of it is remembered, that strangers can ask for."""

from __future__ import annotations

from typing import Any


class Budget:
    """A token bucket: `burst` times at once after a quiet time, `per_second` times a second in the long run."""

    __slots__ = ("_burst", "_last", "_per_second", "_tokens")

    def __init__(self, per_second: float, burst: int) -> None:
        if per_second <= 0 or burst < 1:
            raise ValueError("a rate limit needs per_second > 0 and burst >= 1")
        self._per_second = per_second
        self._burst = self._tokens = float(burst)
        self._last: float | None = None

    def take(self, now: float) -> bool:
        """Whether it may be done once more at `now` (seconds, any clock that does not run backwards)."""
        if self._last is not None:
            earned = max(0.0, now - self._last) * self._per_second
            self._tokens = min(self._burst, self._tokens + earned)
        self._last = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True


class RateLimit(Budget):
    """The same for log lines; counts those that were left out, for the next one to say."""

    __slots__ = ("_suppressed",)

    def __init__(self, per_second: float, burst: int) -> None:
        super().__init__(per_second, burst)
        self._suppressed = 0

    def allow(self, now: float) -> bool:
        """Whether a line may be written at `now` (seconds, any clock that does not run backwards)."""
        if self.take(now):
            return True
        self._suppressed += 1
        return False

    def suppress(self, number: int) -> None:
        """That many lines were left out without being asked for."""
        self._suppressed += number

    def take_suppressed(self) -> int:
        """How many lines were left out since this was last asked."""
        count, self._suppressed = self._suppressed, 0
        return count


def make_room(table: dict[Any, Any], most: int) -> None:
    """Let what was entered first give way, until one more can be entered and there are not more than `most`."""
    while len(table) >= most:
        del table[next(iter(table))]
