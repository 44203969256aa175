"""Files that are mapped into memory, for what must outlive the daemon and is written without a system call.

A page of a file that the disk has no room for kills whoever writes it in memory (SIGBUS, mmap(2)). So a file is all
there before anything depends on it: posix_fallocate(3), and no hole in it later.
"""

from __future__ import annotations

import mmap
import os
import stat
from pathlib import Path

from mcencrypt.errors import OperatorError


def map_file(path: Path, size: int) -> mmap.mmap:
    """The file, of that size and without holes, with what an earlier process of ours left. Raises OperatorError."""
    try:
        descriptor = _open(path)
        try:
            os.ftruncate(descriptor, size)
            os.posix_fallocate(descriptor, 0, size)
            return mmap.mmap(descriptor, size)
        finally:
            os.close(descriptor)
    except OSError as problem:
        raise OperatorError(
            f"cannot keep {path}, of {-(-size >> 20)} MB: {problem.strerror}; make room there, or set run_dir to "
            "another tmpfs"
        ) from None


def _open(path: Path) -> int:
    """What an earlier process of ours left, or a new file in the place of anything else."""
    flags = os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        descriptor = os.open(path, flags)
    except OSError:
        pass  # none, or a link, which is not ours
    else:
        found = os.fstat(descriptor)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
            os.fchmod(descriptor, 0o600)
            return descriptor
        os.close(descriptor)
    path.unlink(missing_ok=True)
    return os.open(path, flags | os.O_CREAT | os.O_EXCL, 0o600)
