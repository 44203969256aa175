"""Network namespaces: making, entering, sweeping up what a killed lab left behind.

Linux keeps the network namespace per *thread* (setns(2)), and a child process inherits that of the thread
that forked it. So entering one for a moment is all that opening a socket or starting a program inside it
takes.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.namespace import OWN, setns

from . import nursery

PREFIX = "mclab"
MOUNTS = Path("/run/netns")
#: Seconds after which what is awaited counts as hanging. They only tell a hang from a busy machine, so they are many.
PATIENCE = 90.0
#: Seconds between two looks that cost much.
_RARELY = 0.25


class LabError(OperatorError):
    """A lab could not be built, or something in it did not happen in time."""


def run(
    argv: list[str],
    *,
    stdin: str | None = None,
    timeout: float = PATIENCE,
    check: bool = True,
    env: dict[str, str] | None = None,
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end in the calling thread's namespace.

    Raises LabError if it failed (unless not `check`; with what it wrote to stderr), is not installed, or took longer
    than `timeout` seconds.
    """
    # files, not pipes: a daemon that the program leaves behind holds its output open
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as problem, _feed(stdin) as feed:
        try:
            started = nursery.start(argv, (feed.fileno(), out.fileno(), problem.fileno()), env=env)
        except FileNotFoundError:
            raise LabError(f"{argv[0]}: not installed") from None
        try:
            code = started.wait(timeout)
        except BaseException as ended:
            started.send_signal(signal.SIGKILL)
            started.wait()
            if isinstance(ended, subprocess.TimeoutExpired):
                raise LabError(f"{' '.join(argv)}: not done after {timeout:g} s") from None
            raise
        out.seek(0)
        problem.seek(0)
        done = subprocess.CompletedProcess(argv, code, out.read(), problem.read())
    if check and done.returncode:
        raise LabError(f"{' '.join(argv)}: exit {done.returncode}: {(done.stderr or done.stdout).strip()}")
    return done


@contextlib.contextmanager
def _feed(text: str | None) -> Iterator[IO[str]]:
    """A file of what a program reads."""
    with open(os.devnull) if text is None else tempfile.TemporaryFile("w+") as feed:
        if text is not None:
            feed.write(text)
            feed.seek(0)
        yield feed


def wait_for(condition: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Poll until `condition()` is true.

    Raises LabError if it was not within `seconds`; `what` says what was awaited.
    """
    end = time.monotonic() + seconds
    pause = 0.002
    while True:
        asked = time.monotonic()
        if condition():
            return
        now = time.monotonic()
        if now > end:
            raise LabError(f"gave up after {seconds:g} s waiting for {what}")
        # what takes long to ask, such as a command, leaves most of the time to those that it waits for
        took = now - asked
        time.sleep(max(pause, took, min(4 * took, _RARELY)))
        pause = min(pause * 1.5, 0.05)


def _setns(descriptor: int) -> None:
    if error := setns(descriptor):
        raise LabError(f"setns: {os.strerror(error)}: the lab needs root")


@contextlib.contextmanager
def entered(name: str) -> Iterator[None]:
    """The calling thread, and it alone, is in the namespace `name` while the context lasts."""
    with open(OWN, "rb") as home, open(MOUNTS / name, "rb") as target:
        _setns(target.fileno())
        try:
            yield
        finally:
            _setns(home.fileno())


def members(name: str) -> list[int]:
    """Process ids of all processes in the namespace `name`, this one excepted."""
    try:
        wanted = os.stat(MOUNTS / name)
    except FileNotFoundError:
        return []
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) != os.getpid():
            with contextlib.suppress(OSError):
                there = os.stat(f"/proc/{entry}/ns/net")
                if (there.st_dev, there.st_ino) == (wanted.st_dev, wanted.st_ino):
                    found.append(int(entry))
    return found


def create(name: str) -> None:
    """Make the namespace `name`, with lo up."""
    run(["ip", "netns", "add", name])
    run(["ip", "-n", name, "link", "set", "lo", "up"])


def delete(name: str) -> None:
    """End whatever still runs in the namespace `name`, by process id, and take the namespace down."""
    for pid in members(name):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    if (MOUNTS / name).exists():
        wait_for(lambda: not _running(name), f"the last processes of {name} to end", 5)
        run(["ip", "netns", "delete", name])


def _running(name: str) -> list[int]:
    """Members that are not zombies: those wait for their parent, not for us."""
    return [pid for pid in members(name) if _state(pid) not in ("Z", "X", "")]


def _state(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def started(pid: int) -> int:
    """When a process started, in clock ticks since boot: with its id it names a process for good.

    0: no such process.
    """
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def owner() -> str:
    """How names begin of what this process makes, so that `sweep` knows whether that process still lives."""
    return f"{PREFIX}-{os.getpid()}-{started(os.getpid())}"


def orphaned(name: str) -> bool:
    """Whether the process that made something of that name is gone."""
    _, pid, start, *_ = name.split("-")
    return pid.isdigit() and start.isdigit() and started(int(pid)) != int(start)


def sweep() -> list[str]:
    """Take down what labs left whose process is gone, killed before it could: namespaces with all processes in
    them, and directories. Returns the names of the namespaces."""
    gone = []
    for path in MOUNTS.glob(f"{PREFIX}-*-*-*"):
        if orphaned(path.name):
            # another lab may be sweeping too
            with contextlib.suppress(LabError):
                delete(path.name)
                gone.append(path.name)
    for path in Path(tempfile.gettempdir()).glob(f"{PREFIX}-*-*-*"):
        if orphaned(path.name):
            shutil.rmtree(path, ignore_errors=True)
    return gone
