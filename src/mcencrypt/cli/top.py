"""``mcencrypt top``."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from mcencrypt.cli.settings import Settings, command, pass_settings
from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.cli.top_screen import Sample

#: Seconds that a daemon may take for its status.
_TIMEOUT = 5.0


@command("mcencrypt top\nmcencrypt top --once --interval 10")
@click.option("--once", is_flag=True, help="Print one frame and end, for scripts; fails if no daemon answers.")
@click.option(
    "--interval", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, metavar="SECONDS",
    help="Time between two looks.",
)  # fmt: skip
@pass_settings
def top(settings: Settings, once: bool, interval: float) -> None:
    """Watch the connections live, the busiest first, until `q` or Ctrl-C.

    OUT/s and IN/s are bytes of the applications per second. If the daemon ends, `top` waits for the next one.
    """
    run_dir = settings.load().run_dir
    if once:
        _once(run_dir, interval)
    elif not sys.stdout.isatty():
        raise OperatorError("top needs a terminal: use `mcencrypt top --once`, or `mcencrypt status`")
    else:
        with contextlib.suppress(KeyboardInterrupt):
            _live(run_dir, interval)


def _sample(run_dir: Path) -> Sample:
    from mcencrypt.cli.top_screen import Sample
    from mcencrypt.control.client import request

    return Sample(time.monotonic(), request(run_dir, "status", timeout=_TIMEOUT))


def _once(run_dir: Path, interval: float) -> None:
    from rich.console import Console

    from mcencrypt.cli.top_screen import frame

    before = _sample(run_dir)
    time.sleep(interval)
    now = _sample(run_dir)
    # What is not a terminal has no width of its own: no line is cut.
    width = None if sys.stdout.isatty() else 200
    Console(width=width, highlight=False).print(frame(before, now))


def _live(run_dir: Path, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from mcencrypt.cli.top_screen import frame, waiting
    from mcencrypt.control.client import NoDaemonError

    console = Console(highlight=False)
    before: Sample | None = None
    seen, answered = False, time.monotonic()
    with _keys() as quit_within, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                now = _sample(run_dir)
            except OperatorError as problem:
                if not seen and not isinstance(problem, NoDaemonError):
                    raise  # one that another daemon would not put right
                before = None
                live.update(waiting(str(problem), time.monotonic() - answered), refresh=True)
            else:
                live.update(frame(before, now, console.height), refresh=True)
                before, seen, answered = now, True, now.at
            if quit_within(interval):
                return


@contextlib.contextmanager
def _keys() -> Iterator[Callable[[float], bool]]:
    """A function that waits so many seconds, and says whether the operator wants to quit.

    Keys count at once and are not shown; the terminal is put right again, whatever ends the program.
    """
    if not sys.stdin.isatty():
        yield _sleep
        return
    import termios
    import tty

    fd = sys.stdin.fileno()
    saved: list[Any] = termios.tcgetattr(fd)
    terminated = signal.signal(signal.SIGTERM, _interrupt)
    try:
        tty.setcbreak(fd)
        yield lambda seconds: _quit_pressed(fd, seconds)
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, saved)
        signal.signal(signal.SIGTERM, terminated)


def _sleep(seconds: float) -> bool:
    time.sleep(seconds)
    return False


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def _quit_pressed(fd: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while (left := deadline - time.monotonic()) > 0:
        if select.select([fd], [], [], left)[0]:
            keys = os.read(fd, 64)
            if not keys or b"q" in keys.lower():
                return True
    return False
