"""Work that needs programs of the system, written from top to bottom and done without anybody waiting for it.

`Steps` yields each `Command` it wants run, gets its `Output`, and returns a result. Who has nothing else to do performs
it (`perform`); an event loop keeps a `Job` of it, and is told by a descriptor when to go on.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from typing import Final, Generic, NamedTuple, TypeVar

from mcencrypt.errors import OperatorError

T = TypeVar("T")
_CHUNK: Final = 1 << 16


class Command(NamedTuple):
    """A program to run: its words, what it reads, its environment."""

    words: tuple[str, ...]
    input: bytes = b""
    environ: Mapping[str, str] = {}
    #: Seconds that it may take; as long as all the steps may if it does not say.
    seconds: float | None = None
    #: What it is called in messages, if not by its first word.
    name: str = ""


class Output(NamedTuple):
    """How it ended, and what it wrote."""

    status: int
    out: bytes
    errors: bytes


Steps = Generator[Command, Output, T]


class Job(Generic[T]):
    """Steps under way, with one deadline for all of them.

    Register `fileno` for reading; call `poll` when it is readable, and at `until`. Both change when `poll` has begun
    another command, which `begun` counts.
    """

    def __init__(self, steps: Steps[T], seconds: float) -> None:
        """Begins at once. Raises what the steps raise before their first command."""
        self._steps = steps
        self._deadline = time.monotonic() + seconds
        self._process: _Process | None = None
        #: Commands that were begun.
        self.begun = 0
        #: time.monotonic() at which the present command is given up.
        self.until = self._deadline
        self._seconds = self._patience = seconds
        #: What the steps returned, once `poll` has said that they are done.
        self.result: T | None = None
        self._ended = False
        self._advance(None)

    def fileno(self) -> int:
        assert self._process is not None, "it has ended"
        return self._process.fileno()

    def poll(self) -> bool:
        """Go on as far as that is possible without waiting; True when all is done.

        Raises what the steps raise, then it has ended as well. A command that took too long is killed, and the steps
        get an OperatorError that says so.
        """
        while not self._ended:
            assert self._process is not None
            output = self._process.poll()
            if output is not None:
                self._advance(output)
            elif time.monotonic() < self.until:
                return False
            else:
                self._process.kill()
                what = f"{self._process.name} is not done within {self._patience:.3g} s"
                self._throw(OperatorError(f"{what}: see who holds /run/xtables.lock"))
        return True

    def cancel(self) -> None:
        """Give it up: the command that runs is killed and reaped."""
        if not self._ended:
            self._ended = True
            if self._process is not None:
                self._process.kill()
            self._steps.close()

    def _advance(self, output: Output | None) -> None:
        self._resume(lambda: next(self._steps) if output is None else self._steps.send(output))

    def _throw(self, problem: OperatorError) -> None:
        self._resume(lambda: self._steps.throw(problem))

    def _resume(self, resume: Callable[[], Command]) -> None:
        try:
            command = resume()
        except StopIteration as stop:
            self._ended, self.result = True, stop.value
        except BaseException:
            self._ended = True
            raise
        else:
            self._begin(command)

    def _begin(self, command: Command) -> None:
        own = time.monotonic() + (command.seconds or self._seconds)
        self.until = min(own, self._deadline)
        # what comes last may have no time left at all, because others took it
        self._patience = command.seconds if command.seconds and own < self._deadline else self._seconds
        self.begun += 1
        try:
            self._process = _Process(command)
        except OSError as error:
            self._throw(OperatorError(f"{command.words[0]} cannot be run: {error.strerror}: repair its package"))


def perform(steps: Steps[T], seconds: float) -> T:
    """Do the steps and wait for them. Raises what they raise, and OperatorError after that many seconds."""
    job = Job(steps, seconds)
    try:
        while not job.poll():
            select.select([job.fileno()], [], [], max(0.0, job.until - time.monotonic()))
    except BaseException:
        job.cancel()
        raise
    return job.result  # type: ignore[return-value]  # the steps' own type, None included


class _Process:
    """One command. What it reads and its errors are files in memory, so that nobody waits for anybody."""

    def __init__(self, command: Command) -> None:
        self.name = command.name or os.path.basename(command.words[0])
        self._out = b""
        source = _memory(command.input)
        self._errors = _memory(b"")
        try:
            self._process = subprocess.Popen(
                command.words,
                stdin=source,
                stdout=subprocess.PIPE,
                stderr=self._errors,
                env=dict(command.environ),
                process_group=0,  # so that what it has started can be ended with it
            )
        except BaseException:
            os.close(self._errors)
            raise
        finally:
            os.close(source)
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)

    def fileno(self) -> int:
        return self._pipe.fileno()

    def poll(self) -> Output | None:
        """What came of it, or None while it runs."""
        while True:
            try:
                chunk = os.read(self._pipe.fileno(), _CHUNK)
            except BlockingIOError:
                return None
            if not chunk:
                return self._end()
            self._out += chunk

    def kill(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._end()

    def _end(self) -> Output:
        self._pipe.close()
        status = self._process.wait()
        with open(self._errors, "rb") as file:
            file.seek(0)
            return Output(status, self._out, file.read())


def _memory(data: bytes) -> int:
    """A file in memory that holds `data`, as a descriptor at its beginning."""
    fd = os.memfd_create("mcencrypt")
    try:
        while data:
            data = data[os.write(fd, data) :]
        os.lseek(fd, 0, os.SEEK_SET)
    except BaseException:
        os.close(fd)
        raise
    return fd
