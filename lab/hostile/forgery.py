"""Who stands on the path and changes or repeats what he sees."""

from __future__ import annotations

from lab.behaviours import Chain, Corrupt, Delay, Duplicate
from lab.transfers import Running

from .frames import Ahead, Newest
from .scenario import Scenario, Stage, Traffic
from .strangers import forge

_SMALL = Traffic(size=3e5)


def _play_back(stage: Stage, running: Running) -> None:
    """All data seen so far comes once more, twice."""
    for _ in range(2):
        forge(stage, running, 300)
        for toward, frame in list(stage.behaviour.data):
            stage.network.box.inject(frame, toward)


SCENARIOS = (
    Scenario(
        "noise",
        "one bit of 1 % of the segments is flipped, the checksum left as it was",
        lambda dice: Corrupt(0.01, fix_checksum=False, dice=dice),
    ),
    Scenario(
        "changed-data",
        "one bit of the data of 1 % of the segments is flipped, the checksum put right",
        lambda dice: Corrupt(0.01, dice=dice),
        tampers=True,
        may_end=True,
    ),
    Scenario(
        "changed-data-all-over",
        "the same with 20 %",
        lambda dice: Corrupt(0.2, dice=dice),
        traffic=_SMALL,
        tampers=True,
        may_end=True,
    ),
    Scenario(
        "forged-copies-ahead",
        "a copy with other data and a right checksum runs ahead of 5 % of the segments",
        lambda dice: Ahead(0.05, dice=dice),
        tampers=True,
        may_end=True,
    ),
    Scenario("echoes", "20 % come again after 100 ms", lambda dice: Duplicate(0.2, 0.1, dice=dice), traffic=_SMALL),
    Scenario(
        "played-back",
        "all data seen so far is sent once more, twice, beside what is new",
        lambda dice: Newest(0.002),
        act=_play_back,
    ),
    Scenario(
        "changed-data-far-away",
        "one bit of the data of 1 % is flipped, checksum right, on a path of 20 ms",
        lambda dice: Chain(Delay(0.01), Corrupt(0.01, dice=dice)),
        traffic=_SMALL,
        tampers=True,
        may_end=True,
    ),
)
