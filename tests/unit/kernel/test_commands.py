"""Steps that run programs: results, failures, one deadline for all."""

from __future__ import annotations

import os
import select
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Command, Job, Output, Steps, perform

pytestmark = pytest.mark.subprocesses

#: Seconds; nothing here lasts that long.
LONG = 60.0


def shell(script: str, data: bytes = b"") -> Steps[Output]:
    return (yield Command(("/bin/sh", "-c", script), data, {"PATH": os.environ["PATH"]}))


def test_a_program_gets_its_input_and_says_what_it_has_to_say() -> None:
    assert perform(shell("cat; echo no >&2; exit 3", b"\xff\0word"), LONG) == Output(3, b"\xff\0word", b"no\n")


def test_much_of_everything_stops_nobody() -> None:
    done = perform(shell("cat; cat /dev/zero | head -c 2000000 >&2", bytes(3_000_000)), LONG)
    assert (len(done.out), len(done.errors)) == (3_000_000, 2_000_000)


def test_steps_read_from_top_to_bottom() -> None:
    def steps() -> Steps[bytes]:
        first = yield from shell("printf one")
        second = yield from shell("cat; printf two", first.out)
        return second.out

    assert perform(steps(), LONG) == b"onetwo"


def test_steps_without_a_command_have_a_result_at_once() -> None:
    def steps() -> Steps[int]:
        yield from ()
        return 7

    job = Job(steps(), LONG)
    assert job.poll()
    assert job.result == 7


def test_a_job_does_not_wait(tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    job = Job(shell(f"read word <{fifo}; echo $word"), LONG)
    assert not job.poll()
    fifo.write_text("word\n")
    assert select.select([job.fileno()], [], [], LONG)[0]
    while not job.poll():
        select.select([job.fileno()], [], [], LONG)
    assert job.result == Output(0, b"word\n", b"")


def test_a_program_that_is_missing_is_an_error_that_steps_may_survive() -> None:
    def steps() -> Steps[str]:
        try:
            yield Command(("/no/such/program",))
        except OperatorError as problem:
            return str(problem)
        return ""

    assert "/no/such/program cannot be run: No such file" in perform(steps(), LONG)
    with pytest.raises(OperatorError, match="cannot be run"):
        perform(shell_of_nothing(), LONG)


def shell_of_nothing() -> Steps[None]:
    yield Command(("/no/such/program",))


def gone(pid: int) -> bool:
    return not Path(f"/proc/{pid}").exists() or "State:\tZ" in Path(f"/proc/{pid}/status").read_text()


def until(condition: object) -> Iterator[None]:
    while not condition():  # type: ignore[operator]
        yield


def test_what_is_not_done_in_time_is_ended_with_all_that_it_started(tmp_path: Path) -> None:
    """One deadline for all the commands of a job."""
    pids = tmp_path / "pids"
    cleaned = []

    def steps() -> Steps[None]:
        try:
            yield from shell("true")
            yield from shell(f"sleep 1000 & echo $! >{pids}; echo $$ >>{pids}; wait")
        finally:
            cleaned.append(True)

    job = Job(steps(), LONG)
    for _ in until(lambda: pids.exists() and len(pids.read_text().split()) == 2):
        job.poll()
    job.until = time.monotonic()
    with pytest.raises(OperatorError, match="sh is not done within 60 s: see who holds"):
        job.poll()
    assert cleaned == [True]
    for pid in pids.read_text().split():
        for _ in until(lambda pid=pid: gone(int(pid))):
            time.sleep(0.001)


def test_a_job_that_is_given_up_leaves_nothing(tmp_path: Path) -> None:
    before = set(os.listdir("/proc/self/fd"))
    job = Job(shell("sleep 1000"), LONG)
    job.cancel()
    job.cancel()
    assert job.poll()
    assert set(os.listdir("/proc/self/fd")) <= before


def test_nothing_is_left_open_after_an_ordinary_end() -> None:
    before = set(os.listdir("/proc/self/fd"))
    perform(shell("true"), LONG)
    assert set(os.listdir("/proc/self/fd")) <= before


def test_a_command_may_have_less_time_than_all_of_them() -> None:
    def steps() -> Steps[str]:
        try:
            yield Command(("/bin/sh", "-c", "exec sleep 1000"), environ={"PATH": os.environ["PATH"]}, seconds=0.1)
        except OperatorError as problem:
            return str(problem)
        return ""

    assert perform(steps(), LONG) == "sh is not done within 0.1 s: see who holds /run/xtables.lock"


def test_a_command_without_time_left_is_told_of_by_the_time_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """And by the name that it was given, where its first word says nothing."""
    command = Command(("/bin/sh", "-c", "exec sleep 1000"), environ={"PATH": os.environ["PATH"]}, name="iptables-save")

    def steps() -> Steps[None]:
        yield Command(("/bin/sh", "-c", "exit 0"), environ={"PATH": os.environ["PATH"]})
        monkeypatch.setattr(time, "monotonic", lambda at=time.monotonic: at() + 2 * LONG)
        yield command

    with pytest.raises(OperatorError, match=f"^iptables-save is not done within {LONG:.3g} s: see who holds"):
        perform(steps(), LONG)
