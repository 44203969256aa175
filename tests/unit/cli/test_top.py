"""`mcencrypt top`: rates, one frame for scripts, and a live screen on a terminal."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from lab import PATIENCE
from mcencrypt.cli.top_screen import Rates, Sample, frame, rates, waiting
from mcencrypt.control.replies import Connection
from tests.helpers import replies
from tests.helpers.commands import SOURCE, fails, run, status_result
from tests.helpers.served import serving


def connection(peer: str = "10.0.0.2:7331", **changes: Any) -> Connection:
    usual = {"local": "10.0.0.1:40000", "identity": "A" * 43 + "=", "bytes_out": 1000, "bytes_in": 2000}
    return replies.connection(**{"peer": peer, **usual} | changes)


def sample(at: float, *connections: Connection, **changes: Any) -> Sample:
    totals = status_result()["totals"]
    totals["bytes_out"] = sum(one["bytes_out"] for one in connections)
    totals["bytes_in"] = sum(one["bytes_in"] for one in connections)
    return Sample(at, status_result(connections=list(connections), totals=totals, **changes))


def shown(before: Sample | None, now: Sample, height: int | None = None, width: int = 160) -> list[str]:
    console = Console(width=width, highlight=False, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file, console.capture() as captured:
        console.print(frame(before, now, height, width))
    return captured.get().splitlines()


# -- numbers


def test_rates_are_what_lies_between_two_samples() -> None:
    before = sample(10.0, connection(), connection("b", bytes_out=5))
    now = sample(12.0, connection(bytes_out=5000, bytes_in=2000, age=102), connection("b", bytes_out=5, age=102))
    total, each = rates(before, now)
    assert each == [Rates(2000.0, 0.0), Rates(0.0, 0.0)] and total == Rates(2000.0, 0.0)


def test_a_new_connection_counts_from_its_beginning() -> None:
    before = sample(10.0, connection(bytes_out=10**6, age=500))
    now = sample(12.0, connection(bytes_out=800, bytes_in=0, age=0.5))
    assert rates(before, now)[1] == [Rates(1600.0, 0.0)], "the same addresses, but another connection"
    assert rates(sample(10.0), now)[1] == [Rates(1600.0, 0.0)]


def test_without_a_sample_before_or_from_another_daemon_there_is_no_rate() -> None:
    now = sample(12.0, connection())
    assert rates(None, now) == (Rates(), [Rates()])
    assert rates(sample(11.0, connection(bytes_out=0), pid=1), now) == (Rates(), [Rates()])


# -- a frame


def test_a_frame_shows_state_totals_trouble_and_the_busiest_first() -> None:
    plain = connection("plain:1", state="plaintext")
    before = sample(10.0, connection("idle:1"), connection("busy:1", name="org-b"), plain)
    now = sample(
        12.0,
        connection("idle:1", age=102),
        connection("busy:1", age=102, bytes_in=4_000_000, name="org-b"),
        connection("plain:1", age=102, state="plaintext", identity=None),
        refused={"wrong-key": 3, "replayed": 0},
    )
    lines = shown(before, now)
    text = "\n".join(lines)
    assert lines[0].startswith("mcencrypt is on (require)") and "pid 4242" in lines[0]
    assert "2 encrypted" in text and "1 plaintext" in text and "in 2.0 MB/s" in text
    assert "wrong-key 3" in text and "replayed" not in text and "5 dropped" in text
    rows = [line.split() for line in lines if ":1 " in line]
    assert [row[0] for row in rows] == ["busy:1", "idle:1", "plain:1"]
    assert rows[0][-1] == "org-b" and rows[1][-1] == "A" * 43 + "=" and rows[2][-1] == "-"
    assert "2.0 MB" in " ".join(rows[0])


def test_a_frame_fits_the_screen_and_says_what_it_leaves_out() -> None:
    now = sample(12.0, *(connection(f"10.0.0.{n}:7331") for n in range(100)))
    for height in (10, 24, 60):
        lines = shown(None, now, height, width=200)
        assert len(lines) <= height
        assert lines[-1] == f"and {100 - (height - 8)} more"
    assert len(shown(None, now)) > 100 and "no connections" in shown(None, sample(1.0))


def test_a_narrow_screen_cuts_lines_and_nothing_breaks() -> None:
    assert all(len(line) <= 40 for line in shown(None, sample(12.0, connection()), 24, width=40))


def test_names_cannot_draw_on_the_terminal() -> None:
    text = "\n".join(shown(None, sample(1.0, connection(name="[red]x\x1b[2J\n"))))
    assert "[red]x?[2J?" in text and "\x1b" not in text


def test_waiting_says_for_how_long() -> None:
    console = Console(width=80, file=open(os.devnull, "w"))  # noqa: SIM115
    with console.file, console.capture() as captured:
        console.print(waiting("start it", 61))
    assert "for 1m01s" in captured.get() and "start it" in captured.get()


# -- the command


def test_once_prints_one_frame_with_rates(tmp_path: Path) -> None:
    sent = iter(range(0, 10**9, 500_000))

    def handler(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return dict(sample(0, connection(bytes_out=next(sent))).status)

    with serving(tmp_path / "run", handler):
        result = run("top", "--once", "--interval", "0.5")
    assert result.exit_code == 0, result.output
    assert "\x1b" not in result.stdout and "10.0.0.2:7331" in result.stdout
    assert "out 0 B/s" not in result.stdout and "A" * 43 + "=" in result.stdout


def test_once_without_a_daemon_and_top_without_a_terminal_are_errors(tmp_path: Path) -> None:
    fails(run("top", "--once"), 1, "no daemon answers")
    fails(run("top"), 1, "needs a terminal", "--once")
    fails(run("top", "--interval", "0"), 2, "--interval")


class Screen:
    """`mcencrypt top` on a terminal of its own."""

    def __init__(self, tmp_path: Path) -> None:
        self.leader, follower = pty.openpty()
        fcntl.ioctl(follower, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 140, 0, 0))
        self.before = termios.tcgetattr(follower)
        self.follower = follower
        self.text = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "mcencrypt", "top", "--interval", "0.1"],
            stdin=follower, stdout=follower, stderr=follower, start_new_session=True,
            env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES")}
            | {"PYTHONPATH": str(SOURCE), "TERM": "xterm-256color"},
        )  # fmt: skip

    def wait_for(self, part: str) -> None:
        """Until the screen has shown `part` since the last call."""
        deadline = time.monotonic() + PATIENCE
        while part not in self.text:
            assert time.monotonic() < deadline, self.text[-2000:]
            if select.select([self.leader], [], [], 0.1)[0]:
                self.text += os.read(self.leader, 65536).decode(errors="replace")
        self.text = ""

    def press(self, keys: bytes) -> None:
        os.write(self.leader, keys)

    def wait(self) -> int:
        """The exit status, once the screen from before is back. What it draws is read, or it would wait for us."""
        deadline = time.monotonic() + PATIENCE
        while (status := self.process.poll()) is None or "\x1b[?1049l" not in self.text:
            assert time.monotonic() < deadline, self.text[-2000:]
            if select.select([self.leader], [], [], 0.05)[0]:
                self.text += os.read(self.leader, 65536).decode(errors="replace")
        return status


@pytest.fixture
def screen(tmp_path: Path) -> Iterator[Screen]:
    made = Screen(tmp_path)
    yield made
    if made.process.poll() is None:
        made.process.kill()
        made.process.wait()
    os.close(made.leader)
    os.close(made.follower)


def daemon(tmp_path: Path, pid: int) -> contextlib.AbstractContextManager[None]:
    def handler(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        return json.loads(json.dumps(sample(0, connection(), pid=pid).status))  # type: ignore[no-any-return]

    return serving(tmp_path / "run", handler)


@pytest.mark.subprocesses
def test_the_screen_follows_daemons_that_come_and_go_and_q_quits(tmp_path: Path, screen: Screen) -> None:
    screen.wait_for("no daemon answers")
    for pid in (1111, 2222):
        with daemon(tmp_path, pid):
            screen.wait_for(f"pid {pid}")
            screen.wait_for("10.0.0.2:7331")
        screen.wait_for("no daemon answers")
    screen.press(b"xq")
    assert screen.wait() == 0
    assert termios.tcgetattr(screen.follower) == screen.before, "the terminal's mode is back as well"


@pytest.mark.subprocesses
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_quits_as_well(tmp_path: Path, screen: Screen, number: int) -> None:
    with daemon(tmp_path, 1111):
        screen.wait_for("pid 1111")
        screen.process.send_signal(number)
        assert screen.wait() == 0
    assert "Traceback" not in screen.text and termios.tcgetattr(screen.follower) == screen.before


@pytest.mark.subprocesses
def test_a_daemon_that_breaks_off_is_waited_for(tmp_path: Path, screen: Screen) -> None:
    broken = threading.Event()

    def handler(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        if broken.is_set():
            raise ZeroDivisionError
        return dict(sample(0, connection()).status)

    with serving(tmp_path / "run", handler):
        screen.wait_for("pid 4242")
        broken.set()
        screen.wait_for("no daemon answers")
        broken.clear()
        screen.wait_for("pid 4242")
    screen.press(b"q")
    assert screen.wait() == 0
