"""Segments that are cut and joined on their way."""

from __future__ import annotations

from lab.behaviours import Chain, Drop, Join, Reorder, Split, Truncate

from .frames import clamped
from .scenario import Scenario, Traffic

_SMALL = Traffic(size=3e5)

SCENARIOS = (
    Scenario("split", "every segment is cut into pieces of up to 700 bytes", lambda dice: Split(1, 700, dice=dice)),
    Scenario(
        "crumbs",
        "a tenth of the segments is cut into pieces of up to 40 bytes",
        lambda dice: Split(0.1, 40, dice=dice),
        traffic=_SMALL,
    ),
    Scenario(
        "split-lossy",
        "every segment is cut into pieces of up to 700 bytes, of which 1 % are lost and 2 % late",
        lambda dice: Chain(Split(1, 700, dice=dice), Drop(0.01, dice=dice), Reorder(0.02, dice=dice)),
        traffic=_SMALL,
    ),
    Scenario("joined", "small segments are joined to up to 1400 bytes", lambda dice: Join(1400), traffic=_SMALL),
    Scenario(
        "cut-anew",
        "segments are cut into pieces of up to 300 bytes and those joined to up to 1000",
        lambda dice: Chain(Split(1, 300, dice=dice), Join(1000)),
        traffic=_SMALL,
    ),
    Scenario("truncated", "2 % of the segments lose their end", lambda dice: Truncate(0.02, dice=dice)),
    Scenario("mss-1200", "a firewall clamps the MSS to 1200", lambda dice: clamped(1200)),
    Scenario("mss-536", "a firewall clamps the MSS to 536", lambda dice: clamped(536)),
)
