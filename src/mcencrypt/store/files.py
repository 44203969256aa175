"""Files that are whole whenever anybody looks, and on disk when a function returns.

They are made under another name and renamed or linked into place, so that nobody ever reads half of one and the first
of two processes wins. All are 0600. What holds the same already is not written again: that needs no room on the disk.

Not every file system has hard links (exFAT, many behind FUSE, SMB without UNIX extensions), and not every one can say
when a folder is on disk.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
import sys
from pathlib import Path
from typing import Final

from mcencrypt.errors import OperatorError

#: What link(2) says where there are no hard links.
_NO_LINKS: Final = {errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EINVAL}
#: What fsync(2) says of a folder where that means nothing.
_NO_FOLDER_SYNC: Final = {errno.EINVAL, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EACCES, errno.EISDIR}


def replace_file(file: Path, content: bytes) -> None:
    """Write a file (0600) whole, in the place of what is there; on disk when this returns. Raises OperatorError."""
    try:
        if not _holds(file, content):
            temporary = _write_temporary(file, content)
            try:
                temporary.replace(file)
            except BaseException:
                temporary.unlink()
                raise
        _sync_directory(file.parent)
    except OSError as error:
        raise cannot(file, "be written", error) from None


def create_file(file: Path, content: bytes) -> bool:
    """Make a file (0600) with this content, whole or not at all; False if it exists. Raises OSError."""
    if file.exists() or file.is_symlink():
        return False
    temporary = _write_temporary(file, content)
    try:
        os.link(temporary, file)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if not _move_to_new(temporary, file):
            return False
    finally:
        temporary.unlink(missing_ok=True)
    _sync_directory(file.parent)
    return True


def remove_file(file: Path) -> None:
    """Take a file away if it is there; on disk when this returns. Raises OperatorError."""
    try:
        with contextlib.suppress(FileNotFoundError):
            file.unlink()
            _sync_directory(file.parent)
    except OSError as error:
        raise cannot(file, "be removed", error) from None


def cannot(file: Path, what: str, error: OSError) -> OperatorError:
    """What to tell the operator if `file` cannot `what` ("be read")."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return OperatorError(f"{file}: cannot {what}: {error.strerror}: make room there")
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return OperatorError(f"{file}: cannot {what}: {_missing(file)}")
    if error.errno == errno.EISDIR:
        return OperatorError(f"{file}: cannot {what}: it is a folder: name a file")
    return OperatorError(f"{file}: cannot {what}: {error.strerror}: run as root, or check its directory")


def _missing(file: Path) -> str:
    """What of a path is not there."""
    for folder in reversed(file.parents):
        if not os.path.isdir(folder):
            return f"{folder} is {'no folder' if os.path.lexists(folder) else 'not there'}: look at the path"
    return f"there is no such file in {file.absolute().parent}"


def main() -> None:
    """For a child of a process that waits for no disk: the file that is named becomes what comes in."""
    try:
        replace_file(Path(sys.argv[1]), sys.stdin.buffer.read())
    except OperatorError as problem:
        sys.exit(str(problem))


def _holds(file: Path, content: bytes) -> bool:
    """Whether it is as `replace_file` would leave it."""
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    with open(descriptor, "rb") as stream:
        found = os.fstat(descriptor)
        whole = stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o600 and found.st_uid == os.geteuid()
        return whole and stream.read(len(content) + 1) == content


def _move_to_new(temporary: Path, file: Path) -> bool:
    """Move a file to a name that nobody has yet; False if somebody has it.

    The name is claimed by an empty file first. A crash in this instant leaves that: no key, and said to be none.
    """
    try:
        os.close(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    try:
        temporary.replace(file)
    except BaseException:
        file.unlink()
        raise
    return True


def _write_temporary(file: Path, content: bytes) -> Path:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(descriptor)
    except BaseException:
        temporary.unlink()
        raise
    return temporary


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise
    finally:
        os.close(descriptor)


if __name__ == "__main__":
    main()
