"""When counters last grew."""

from __future__ import annotations

from pathlib import Path

from mcencrypt.daemon.growth import Growth
from tests.helpers.station import Station


def test_each_counter_has_its_own_time() -> None:
    growth = Growth()
    growth.look({"a": 0, "b": 2}, 10.0)
    growth.look({"a": 0, "b": 2}, 20.0)
    assert growth.ages(30.0) == {"b": 20.0}
    growth.look({"a": 1, "b": 2}, 40.0)
    assert growth.ages(40.5) == {"b": 30.5, "a": 0.5}


def test_a_status_says_when_something_was_last_refused(tmp_path: Path) -> None:
    station = Station(tmp_path)
    station.snapshots.look()
    station.engine.outcome.drop("replayed")
    station.snapshots.look()
    station.loop.run(90)
    assert station.ask("status")["grew"]["refused.replayed"] == 90.0
