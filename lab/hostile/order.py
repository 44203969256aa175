"""Frames in another order, and more than once."""

from __future__ import annotations

from lab.behaviours import Chain, Drop, Duplicate, Reorder

from .frames import Swap, bare_ack
from .scenario import MEASURED, Scenario, Traffic

_BULK = Traffic(size=6e5, connections=4)


def _late(percent: float, milliseconds: float, target: float | None) -> Scenario:
    return Scenario(
        f"reordering-{percent:g}",
        f"{percent:g} % of the segments with data come {milliseconds:g} ms late",
        lambda dice: Reorder(percent / 100, milliseconds / 1000, dice=dice),
        traffic=MEASURED if target else _BULK,
        target=target,
        rounds=3 if target else 1,
    )


SCENARIOS = (
    _late(1, 3, 0.8),
    _late(5, 3, 0.8),
    _late(25, 3, None),
    Scenario("swapped", "every fifth segment with data changes places with the next", lambda dice: Swap(5)),
    Scenario(
        "late-acknowledgements",
        "20 % of the acknowledgements without data come 5 ms late",
        lambda dice: Reorder(0.2, 0.005, choose=bare_ack, dice=dice),
        traffic=_BULK,
    ),
    Scenario("duplicates", "5 % of the segments with data come twice", lambda dice: Duplicate(0.05, dice=dice)),
    Scenario(
        "late-duplicates",
        "5 % of the segments with data come again after 300 ms",
        lambda dice: Duplicate(0.05, 0.3, dice=dice),
    ),
    Scenario("all-twice", "every segment with data comes twice", lambda dice: Duplicate(1, 0.0005, dice=dice)),
    Scenario(
        "all-of-it",
        "1 % lost, 5 % late, 5 % twice",
        lambda dice: Chain(Drop(0.01, dice=dice), Reorder(0.05, dice=dice), Duplicate(0.05, dice=dice)),
    ),
)
