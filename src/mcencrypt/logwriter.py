"""Log lines on their way out of the process, which never waits for whoever reads them.

A terminal that is stopped, a pipe or journal whose reader hangs, a disk that is full: writing there would hold up the
packets behind it. So lines that do not fit wait here, a bounded number of bytes; what does not fit here either is lost,
and counted in the next line that gets out. A file of our own has an end as well.
"""

from __future__ import annotations

import contextlib
import logging
import os
import select
import socket
import stat
import time
from collections import deque
from pathlib import Path
from typing import Final

#: Bytes of lines that wait for a reader.
WAITING: Final = 256 << 10
#: Bytes of a file of our own; as much again is in FILE.1.
FILE_LIMIT: Final = 8 << 20
#: Seconds that the lines of the end may take.
LAST_WORDS: Final = 0.5
_LOST: Final = "log lines were lost"


class LogWriter(logging.Handler):
    """Writes to a descriptor, or to a file that it keeps small."""

    def __init__(self, descriptor: int, file: Path | None = None, limit: int = FILE_LIMIT) -> None:
        """Writes to a copy of `descriptor`. `file`: the path that it is open on, if that file is ours alone."""
        super().__init__()
        self._out = _out(descriptor) if file is None else _File(descriptor, file, limit)
        #: Lines, the first one perhaps in part, and whether each counts: one that tells of others does not.
        self._waiting: deque[tuple[bytes, bool]] = deque()
        self._size = 0
        #: Lines that were lost since the start, and whether that is to be told.
        self.lost = 0
        self._untold = False

    def emit(self, record: logging.LogRecord) -> None:
        """Write it, or let it wait. Raises nothing."""
        try:
            line = self._line(record)
        except Exception:
            self.handleError(record)
            return
        self.flush()
        if self._untold or self._size + len(line) > WAITING:
            self._lose(1)
        else:
            self._add(line, True)
            self._drain()

    def flush(self) -> None:
        """Write of the waiting lines what can be written now. Raises nothing."""
        self._drain()
        if self._untold and not self._waiting:
            self._untold = False
            self._add(self._line(_lost(self.lost)), False)
            self._drain()

    def close(self) -> None:
        """The last lines get a moment: no packet is behind them."""
        deadline = time.monotonic() + LAST_WORDS
        self.flush()
        while self._waiting and (left := deadline - time.monotonic()) > 0 and self._out.writable(left):
            self.flush()
        self._out.close()
        super().close()

    def _drain(self) -> None:
        while self._waiting:
            line, counts = self._waiting[0]
            try:
                written = self._out.write(line)
            except BlockingIOError:
                return
            except OSError:  # a reader that is gone, a disk that is full: it may be better later
                self._lose(sum(counts for _, counts in self._waiting))
                self._waiting.clear()
                self._size = 0
                return
            self._size -= written
            if written < len(line):
                self._waiting[0] = line[written:], counts
            else:
                self._waiting.popleft()

    def _add(self, line: bytes, counts: bool) -> None:
        self._waiting.append((line, counts))
        self._size += len(line)

    def _lose(self, lines: int) -> None:
        self.lost += lines
        self._untold = True

    def _line(self, record: logging.LogRecord) -> bytes:
        return self.format(record).encode(errors="backslashreplace") + b"\n"


def _lost(count: int) -> logging.LogRecord:
    fields = {"since_start": count, "reason": "nobody read them, or the disk was full"}
    return logging.makeLogRecord({"levelno": logging.WARNING, "levelname": "WARNING", "msg": _LOST, "fields": fields})


class _Out:
    """A descriptor to write to; what waits raises BlockingIOError, everything else OSError."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, line: bytes) -> int:
        """How many bytes were written."""
        return os.write(self._descriptor, line)

    def writable(self, seconds: float) -> bool:
        """Whether more can be written, or nothing ever, within that time."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return bool(poll.poll(seconds * 1000))

    def close(self) -> None:
        os.close(self._descriptor)


def _out(descriptor: int) -> _Out:
    """A way to write there that does not wait, and leaves the descriptor, which others share, as it is."""
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(kind):
        return _Socket(descriptor)
    if stat.S_ISREG(kind):
        return _Out(os.dup(descriptor))  # nobody reads there
    flags = os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        return _Out(os.open(f"/proc/self/fd/{descriptor}", flags))
    except OSError:
        return _Polled(os.dup(descriptor))  # another user's pipe or terminal, which only the descriptor lets us use


class _Socket(_Out):
    def __init__(self, descriptor: int) -> None:
        self._socket = socket.socket(fileno=os.dup(descriptor))
        super().__init__(self._socket.fileno())

    def write(self, line: bytes) -> int:
        return self._socket.send(line, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)

    def close(self) -> None:
        self._socket.close()


class _Polled(_Out):
    def write(self, line: bytes) -> int:
        if not self.writable(0):
            raise BlockingIOError
        return os.write(self._descriptor, line[: select.PIPE_BUF])  # for so many there is room (pipe(7))


class _File(_Out):
    """A file of our own: before it grows beyond its limit it becomes FILE.1, and a new one begins."""

    def __init__(self, descriptor: int, file: Path, limit: int) -> None:
        super().__init__(os.dup(descriptor))
        self._file, self._limit = file, limit

    def write(self, line: bytes) -> int:
        if os.fstat(self._descriptor).st_size + len(line) > self._limit:
            self._turn()
        return os.write(self._descriptor, line)

    def _turn(self) -> None:
        before = os.fstat(self._descriptor)
        try:
            with contextlib.suppress(FileNotFoundError):  # somebody else has put it aside, logrotate(8) for instance
                if os.path.samestat(os.lstat(self._file), before):
                    self._file.replace(self._file.with_name(f"{self._file.name}.1"))
            descriptor = open_file(self._file)
        except OSError:
            os.ftruncate(self._descriptor, 0)  # an end it has in any case
            return
        for shared in (1, 2):  # what is printed, tracebacks for instance, stays in the same file
            with contextlib.suppress(OSError):
                if os.path.samestat(os.fstat(shared), before):
                    os.dup2(descriptor, shared)
        os.close(self._descriptor)
        self._descriptor = descriptor


def open_file(file: Path) -> int:
    """A descriptor on a log file (0600), to append to. Raises OSError."""
    return os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
