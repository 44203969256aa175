"""``mcencrypt top``."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Self

import click

from mcencrypt.cli import text
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
    run_dir = settings.run_dir_to_read()
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
    width = text.columns() or 200
    Console(width=width, highlight=False).print(frame(before, now, width=width))


def _live(run_dir: Path, interval: float) -> None:
    from rich.console import Console
    from rich.live import Live

    from mcencrypt.cli.top_screen import frame, waiting
    from mcencrypt.control.client import NoDaemonError

    console = Console(highlight=False)
    before: Sample | None = None
    seen, answered = False, time.monotonic()
    with _Operator() as operator, Live(console=console, screen=True, auto_refresh=False) as live:
        while True:
            try:
                with operator.waits():
                    now = _sample(run_dir)
            except OperatorError as problem:
                if not seen and not isinstance(problem, NoDaemonError):
                    raise  # one that another daemon would not put right
                before = None
                live.update(waiting(str(problem), time.monotonic() - answered), refresh=True)
            else:
                live.update(frame(before, now, console.height, console.width), refresh=True)
                before, seen, answered = now, True, now.at
            if operator.quits_within(interval):
                return


class _Operator:
    """Who watches, and may quit by `q`, Ctrl-C or SIGTERM: at once while the program waits, and after the frame that
    it draws, since half a frame is a terminal that nobody puts right again.

    Keys count at once and are not shown; the terminal and the signals are put right at the end of the context.
    """

    def __init__(self) -> None:
        self._quits = False
        self._waiting = False
        self._restore = contextlib.ExitStack()

    def __enter__(self) -> Self:
        for number in (signal.SIGINT, signal.SIGTERM):
            self._restore.callback(signal.signal, number, signal.signal(number, self._signalled))
        if sys.stdin.isatty():
            import termios
            import tty

            fd = sys.stdin.fileno()
            self._restore.callback(termios.tcsetattr, fd, termios.TCSADRAIN, termios.tcgetattr(fd))
            tty.setcbreak(fd)
        return self

    def __exit__(self, *_: object) -> None:
        self._restore.close()

    def _signalled(self, *_: object) -> None:
        self._quits = True
        if self._waiting:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def waits(self) -> Iterator[None]:
        """What is done meanwhile ends with KeyboardInterrupt when the operator quits by a signal."""
        self._waiting = True
        try:
            if self._quits:
                raise KeyboardInterrupt
            yield
        finally:
            self._waiting = False

    def quits_within(self, seconds: float) -> bool:
        """Wait so long, or until the operator quits."""
        with self.waits():
            deadline = time.monotonic() + seconds
            watched = [sys.stdin.fileno()] if sys.stdin.isatty() else []
            while (left := deadline - time.monotonic()) > 0:
                if select.select(watched, [], [], left)[0]:
                    keys = os.read(watched[0], 64)
                    if not keys or b"q" in keys.lower():
                        return True
        return False
