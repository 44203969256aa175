"""Frames that take their time."""

from __future__ import annotations

from lab.behaviours import Delay

from .frames import Stepped
from .scenario import MEASURED, Scenario, Traffic

_BULK = Traffic(size=6e5, connections=4)


def _distant(milliseconds: float, target: float | None) -> Scenario:
    return Scenario(
        f"distance-{milliseconds:g}",
        f"a round trip takes {milliseconds:g} ms",
        lambda dice: Delay(milliseconds / 2000),
        traffic=MEASURED if target else _BULK,
        target=target,
        rounds=3 if target else 1,
    )


SCENARIOS = (
    _distant(10, 0.9),
    _distant(50, 0.9),
    _distant(300, None),
    Scenario(
        "jitter",
        "a round trip takes 20 to 22 ms, at random: frames overtake each other",
        lambda dice: Delay(0.01, 0.001, dice),
        traffic=_BULK,
    ),
    Scenario(
        "wild-jitter",
        "a round trip takes 10 to 50 ms, at random",
        lambda dice: Delay(0.005, 0.02, dice),
        traffic=Traffic(size=5e5, connections=4),
    ),
    Scenario(
        "changing-route",
        "every 0.3 s the path takes another while: 2, 20, 8 ms",
        lambda dice: Stepped((0.002, 0.02, 0.008), 0.3),
        traffic=_BULK,
    ),
)
