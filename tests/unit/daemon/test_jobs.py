"""Work beside the packets: with a real loop and real programs, and what becomes of it when it fails."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcencrypt.daemon import jobs as module
from mcencrypt.daemon.jobs import Jobs
from mcencrypt.daemon.loop import Loop
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Command, Steps

pytestmark = pytest.mark.subprocesses


class Bench:
    """Jobs of a loop that runs until all are done."""

    def __init__(self) -> None:
        self.loop = Loop()
        self.jobs = Jobs(self.loop)
        self.heard: list[object] = []
        self._steps: list[Steps[object]] = []

    def add(self, steps: Steps[object]) -> None:
        self._steps.append(steps)

    def _hear(self, answer: object) -> None:
        self.heard.append(answer if not isinstance(answer, OperatorError) else str(answer))
        if len(self.heard) == len(self._steps):
            self.loop.stop()

    def run(self) -> list[object]:
        """Do what was added, and what is added meanwhile."""
        for steps in self._steps:
            self.jobs.run(steps, self._hear, self._hear)
        self.loop.run()
        return self.heard


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.jobs.close()


def shell(script: str) -> Steps[str]:
    done = yield Command(("/bin/sh", "-c", script), environ={"PATH": os.environ["PATH"]})
    return done.out.decode()


def test_one_after_the_other_each_with_several_programs(bench: Bench, tmp_path: Path) -> None:
    def steps(name: str) -> Steps[str]:
        for _ in range(5):
            yield from shell(f"printf {name} >>{tmp_path}/log")
        return (yield from shell(f"cat {tmp_path}/log"))

    bench.add(steps("a"))
    bench.add(steps("b"))
    assert bench.run() == ["aaaaa", "aaaaabbbbb"]
    assert bench.jobs.idle


def test_the_loop_goes_on_meanwhile(bench: Bench, tmp_path: Path) -> None:
    """Somebody else holds a lock for as long as he likes; the program ends when the loop lets it."""
    fifo = tmp_path / "lock"
    os.mkfifo(fifo)
    turns: list[float] = []

    def turn() -> None:
        turns.append(time.monotonic())
        if len(turns) < 50:
            bench.loop.call_at(time.monotonic(), turn)
        else:
            fifo.write_text("free\n")

    bench.loop.call_at(time.monotonic(), turn)
    bench.add(shell(f"read word <{fifo}; echo $word"))
    assert bench.run() == ["free\n"]
    assert len(turns) == 50


def test_what_takes_too_long_is_ended_and_the_next_is_done(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SECONDS", 0.2)
    bench.add(shell("exec sleep 1000"))
    assert bench.run() == ["sh is not done within 0.2 s: see who holds /run/xtables.lock"]
    monkeypatch.setattr(module, "SECONDS", 60)
    again = Bench()
    again.add(shell("echo next"))
    assert again.run() == ["next\n"]


def test_failures_and_errors_of_ours_are_answered_and_end_nothing(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    def refused() -> Steps[str]:
        yield from shell("true")
        raise OperatorError("iptables-restore failed")

    def mistaken() -> Steps[str]:
        yield from shell("true")
        return str(1 / 0)

    for steps in (refused(), mistaken(), shell("echo last")):
        bench.add(steps)
    assert bench.run() == [
        "iptables-restore failed", "the daemon failed at this; its log says why", "last\n"
    ]  # fmt: skip
    assert "ZeroDivisionError" in caplog.text


def test_what_is_asked_for_in_an_answer_has_its_turn(bench: Bench, tmp_path: Path) -> None:
    fifo = tmp_path / "all are in line"
    os.mkfifo(fifo)
    heard: list[str] = []

    def first(answer: str) -> None:
        heard.append(answer)
        bench.jobs.run(shell("printf third"), last, lambda problem: None)

    def last(answer: str) -> None:
        heard.append(answer)
        bench.loop.stop()

    bench.jobs.run(shell(f"read word <'{fifo}'; printf first"), first, lambda problem: None)
    bench.jobs.run(shell("printf second"), heard.append, lambda problem: None)
    fifo.write_text("go\n")
    bench.loop.run()
    assert heard == ["first", "second", "third"]


def test_close_gives_up_what_is_under_way_and_what_waits(bench: Bench) -> None:
    before = set(os.listdir("/proc/self/fd"))
    ended: list[str] = []

    def steps(name: str) -> Steps[str]:
        try:
            return (yield from shell("sleep 1000"))
        finally:
            ended.append(name)

    for name in ("under way", "waits"):
        bench.jobs.run(steps(name), lambda answer: None, lambda problem: None)
    bench.jobs.close()
    assert ended == ["under way"], "what has not begun has nothing to end"
    assert bench.jobs.idle
    assert set(os.listdir("/proc/self/fd")) <= before
