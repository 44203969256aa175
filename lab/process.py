"""A program that runs beside the test or demo, with its output in a file, ended with all its children."""

from __future__ import annotations

import codecs
import contextlib
import json
import os
import signal
import subprocess
from pathlib import Path
from typing import Any, NoReturn

from . import nursery
from .namespace import PATIENCE, LabError, wait_for


class Process:
    """A started program, leader of a process group of its own.

    Its standard output and error go to `log`, where they stay readable after its end.
    """

    def __init__(
        self,
        argv: list[str],
        log: Path,
        env: dict[str, str] | None = None,
        cwd: str | os.PathLike[str] | None = None,
    ) -> None:
        self.argv = argv
        self.log = log
        # what was read of it already, since those who wait look often
        self._read, self._text, self._decoder = 0, "", codecs.getincrementaldecoder("utf-8")("replace")
        self._parsed, self._rest = 0, ""
        self._events: list[dict[str, Any]] = []
        with open(log, "ab") as out, open(os.devnull) as nothing:
            files = nothing.fileno(), out.fileno(), out.fileno()
            try:
                self._popen = nursery.start(argv, files, env=env, cwd=cwd, session=True)
            except FileNotFoundError:
                raise LabError(f"{argv[0]}: not installed") from None

    @property
    def pid(self) -> int:
        """The program's process id."""
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """Its exit code, minus the signal that ended it, or None while it runs."""
        return self._popen.poll()

    def output(self) -> str:
        """All it has written so far."""
        with open(self.log, "rb") as log:
            log.seek(self._read)
            new = log.read()
        self._read += len(new)
        self._text += self._decoder.decode(new)
        return self._text

    def events(self) -> list[dict[str, Any]]:
        """The complete JSON objects, one per line, that it has written so far."""
        *lines, self._rest = (self._rest + self.output()[self._parsed :]).split("\n")
        self._parsed = len(self._text)
        for line in lines:
            if line.startswith("{"):
                with contextlib.suppress(ValueError):
                    self._events.append(json.loads(line))
        return list(self._events)

    def wait_for(self, text: str, seconds: float = PATIENCE) -> None:
        """Wait until it has written `text`.

        Raises LabError, with the tail of its output, if it ended first or `seconds` passed.
        """

        def there() -> bool:
            ended = self.exit_code is not None
            if text in self.output():
                return True
            if ended:
                raise LabError(f"{self} ended with {self.exit_code} before {text!r}: {self._tail()}")
            return False

        try:
            wait_for(there, f"{text!r} from {self}", seconds)
        except LabError as problem:
            raise LabError(f"{problem}; it wrote: {self._tail()}") from None

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for its end; returns the exit code. Raises LabError if it still runs after `seconds`."""
        try:
            return self._popen.wait(seconds)
        except subprocess.TimeoutExpired:
            raise LabError(f"{self} still runs after {seconds:g} s; it wrote: {self._tail()}") from None

    def result(self, seconds: float = PATIENCE) -> dict[str, Any]:
        """Wait for its end and return the last JSON object it wrote.

        Raises LabError if it did not end within `seconds`, wrote none, or failed.
        """
        code = self.wait(seconds)
        events = self.events()
        if code or not events:
            self.failed("failed" if code else "no result")
        return events[-1]

    def failed(self, why: str) -> NoReturn:
        """Raise a LabError that says so, with the exit code and the tail of the output."""
        raise LabError(f"{self}: {why} (exit {self.exit_code}): {self._tail()}")

    def signal(self, number: int) -> None:
        """Send a signal to the program itself, not to its children."""
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL to the whole process group, and wait."""
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def stop(self, seconds: float = PATIENCE) -> int:
        """SIGTERM to the whole process group; SIGKILL if it has not ended after `seconds`.

        Returns the exit code.
        """
        if self.exit_code is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._popen.wait(seconds)
        self.kill()
        return int(self._popen.returncode)

    def _tail(self) -> str:
        return self.output()[-800:].strip() or "nothing"

    def __str__(self) -> str:
        return f"{Path(self.argv[0]).name} (pid {self.pid})"
