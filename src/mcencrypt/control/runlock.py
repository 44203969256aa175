"""One daemon per run directory: a lock that the kernel gives back when its holder dies.

Whatever changes the rules or the remembered state holds it: the daemon for its life, and `mcencrypt off`
while no daemon runs.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
import struct
from pathlib import Path

from mcencrypt.errors import OperatorError

LOCK_NAME = "daemon.lock"
#: In the state directory: two daemons with one would share an identity, and one's `off` would be the other's.
STATE_LOCK_NAME = "state.lock"
# struct flock of fcntl(2): l_type, l_whence, l_start, l_len (0: to the end), l_pid (0, as OFD locks want it).
_FLOCK = struct.Struct("hhqqi4x")
_EXCLUSIVE = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)


class LockHeldError(OperatorError):
    """Another process holds the lock."""


class RunLock:
    """An exclusive lock on ``run_dir/daemon.lock``, which names its holder's process id.

    It is an open file description lock (fcntl(2)): like flock(2) it belongs to the descriptor, but one can
    ask who holds it without taking it. The file is never unlinked: a second process could lock the unlinked
    one, a third a new one.
    """

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd

    @classmethod
    def acquire(cls, run_dir: Path, name: str = LOCK_NAME, setting: str = "--run-dir") -> RunLock:
        """Take the lock without waiting, making `run_dir` (0700) if it is missing.

        `name` is the lock's file, `setting` what chose its folder.

        Raises LockHeldError if a daemon already runs there, OperatorError if `run_dir` cannot be used or others could
        write to it.
        """
        path = run_dir / name
        try:
            run_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_folder(run_dir, setting)
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except PermissionError:
            raise OperatorError(f"you may not write to {path}: run this as root, or choose another {setting}") from None
        except OSError as error:
            raise OperatorError(f"cannot use {path}: {error.strerror}; choose another {setting}") from None
        try:
            fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _EXCLUSIVE)
        except (BlockingIOError, PermissionError):
            pid = _read_pid(fd)
            os.close(fd)
            raise LockHeldError(
                f"a daemon already runs in {run_dir} (pid {pid}): stop it first, or choose another {setting}"
            ) from None
        with contextlib.suppress(OSError):  # a full disk: who holds it is a help, and not what locks
            os.ftruncate(fd, 0)
            os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        return cls(fd)

    def release(self) -> None:
        """Give the lock back. May be called twice."""
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
            os.close(self._fd)
            self._fd = None

    def __enter__(self) -> RunLock:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()


def is_held(run_dir: Path) -> bool:
    """Whether some process holds the lock of `run_dir` now (False as well if that cannot be known)."""
    try:
        fd = os.open(run_dir / LOCK_NAME, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _EXCLUSIVE)
    finally:
        os.close(fd)
    return bool(_FLOCK.unpack(answer)[0] != fcntl.F_UNLCK)


def _check_folder(run_dir: Path, setting: str) -> None:
    info = run_dir.stat()
    if info.st_uid not in (0, os.geteuid()) or info.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise OperatorError(
            f"{run_dir} can be written by others, who could then control the daemon: "
            f"run `chmod go-w {run_dir}` as its owner, or choose another {setting}"
        )


def _read_pid(fd: int) -> str:
    return os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
