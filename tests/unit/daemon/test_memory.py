"""What is remembered of who answered where: on disk soon, shown, and forgotten on request."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import pytest

from mcencrypt.core.answers import Answered
from mcencrypt.daemon import memory
from mcencrypt.daemon.memory import AGAIN, DELAY
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Steps, perform
from mcencrypt.store.answers import NAME, read_answers, write_answers
from tests.helpers.station import Station

AT, ELSEWHERE = b"\x0a\0\0\2\x1c\xa3", b"\x0a\0\0\3\x1c\xa3"
ONE, TWO = b"\1" * 32, b"\2" * 32


pytestmark = pytest.mark.subprocesses  # the child that writes is what is tested


class AtOnce:
    """Jobs that are done before anything else happens."""

    idle = True

    def run(self, steps: Steps[None], done: Callable[[None], None], failed: Callable[[OperatorError], None]) -> None:
        try:
            done(perform(steps, 60))
        except OperatorError as problem:
            failed(problem)

    def close(self) -> None:
        """Nothing is left."""


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The child that writes is waited for."""
    monkeypatch.setattr(memory.Memory, "_jobs", property(lambda self: AtOnce(), lambda self, jobs: None), raising=False)


def remembered(station: Station) -> dict[bytes, bytes]:
    """What is on disk."""
    return {endpoint: one.identity for endpoint, one in read_answers(station.config.state_dir).items()}


def test_news_is_on_disk_a_moment_later(tmp_path: Path) -> None:
    station = Station(tmp_path)
    answers = station.engine.admission.identities.answers
    answers.note(AT, ONE, 1_750_000_000)
    assert remembered(station) == {}, "no packet waits for a disk"
    answers.note(ELSEWHERE, TWO, 1_750_000_000)
    station.loop.run(DELAY)
    assert remembered(station) == {AT: ONE, ELSEWHERE: TWO}
    answers.note(AT, TWO, 1_750_000_001)
    station.loop.run(DELAY)
    assert read_answers(tmp_path)[AT].other == TWO


def test_what_an_earlier_daemon_remembered_still_counts(tmp_path: Path) -> None:
    write_answers(tmp_path, {AT: Answered(ONE, 1_750_000_000, 1_750_000_000)})
    station = Station(tmp_path)
    assert station.engine.admission.identities.answers.expected(AT, TWO) == ONE


def test_a_file_that_cannot_be_read_lets_no_daemon_start(tmp_path: Path) -> None:
    (tmp_path / NAME).write_text("something else\n")
    with pytest.raises(OperatorError, match="line 1"):
        Station(tmp_path)


def test_what_cannot_be_written_is_said_and_tried_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    station = Station(tmp_path)
    blocked = tmp_path / NAME
    blocked.mkdir()
    station.engine.admission.identities.answers.note(AT, ONE, 1_750_000_000)
    with caplog.at_level(logging.ERROR):
        station.loop.run(DELAY)
    assert "could not be kept" in caplog.text
    blocked.rmdir()
    station.loop.run(AGAIN)
    assert remembered(station) == {AT: ONE}


def test_what_is_not_kept_yet_is_kept_at_the_end(tmp_path: Path) -> None:
    station = Station(tmp_path)
    station.engine.admission.identities.answers.note(AT, ONE, 1_750_000_000)
    station.memory.close()
    assert remembered(station) == {AT: ONE}


def test_it_is_shown_and_forgotten(tmp_path: Path) -> None:
    write_answers(
        tmp_path,
        {AT: Answered(ONE, 1_750_000_000, 1_750_000_000, TWO, 1_750_000_009), ELSEWHERE: Answered(ONE, 1, 2)},
    )
    station = Station(tmp_path)
    shown, _ = station.ask("peers")["answered"]
    assert (shown["address"], shown["other_at"], shown["pinned"]) == ("10.0.0.2:7331", "2025-06-15T15:06:49Z", False)
    assert [one["address"] for one in station.ask("status")["changed_keys"]] == ["10.0.0.2:7331"]
    assert station.snapshots.metrics()["changed_keys"] == 1
    assert station.ask("peers-forget", address="10.0.0.2") == {"forgotten": ["10.0.0.2:7331"]}
    assert station.ask("status")["changed_keys"] == []
    station.loop.run(DELAY)
    assert remembered(station) == {ELSEWHERE: ONE}
    for wrong, problem in (("10.0.0.2", "nothing is remembered of 10.0.0.2"), ("node-b", "is not an address")):
        with pytest.raises(OperatorError, match=problem):
            station.ask("peers-forget", address=wrong)


def test_addresses_of_the_peers_file_are_shown_as_pinned(tmp_path: Path) -> None:
    write_answers(tmp_path, {AT: Answered(ONE, 1, 2)})
    station = Station(tmp_path, pin=True)
    [shown] = station.ask("peers")["answered"]
    assert shown["pinned"] is True
