"""When counters last grew: a number since the start does not say whether it is still happening."""

from __future__ import annotations

from collections.abc import Mapping


class Growth:
    """Of counters by name."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}
        self._grew: dict[str, float] = {}

    def look(self, counters: Mapping[str, int], now: float) -> None:
        """These are the counters at `now`, in seconds; one that was not there before was 0."""
        for name, count in counters.items():
            if count > self._known.get(name, 0):
                self._grew[name] = now
            self._known[name] = count

    def ages(self, now: float) -> dict[str, float]:
        """Seconds since each counter was last seen to have grown; those that never did are left out."""
        return {name: round(now - when, 3) for name, when in self._grew.items()}
