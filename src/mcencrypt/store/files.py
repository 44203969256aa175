"""Files that are whole whenever anybody looks, and on disk when a function returns.

They are made under another name and renamed or linked into place, so that nobody ever reads half of one and the first
of two processes wins.  All are 0600.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from mcencrypt.errors import OperatorError


def replace_file(file: Path, content: bytes) -> None:
    """Write a file (0600) whole, in the place of what is there; on disk when this returns. Raises OperatorError."""
    try:
        temporary = _write_temporary(file, content)
        temporary.replace(file)
        _sync_directory(file.parent)
    except OSError as error:
        raise cannot(file, "be written", error) from None


def create_file(file: Path, content: bytes) -> bool:
    """Make a file (0600) with this content, whole or not at all; False if it exists."""
    if file.exists() or file.is_symlink():
        return False
    temporary = _write_temporary(file, content)
    try:
        os.link(temporary, file)
    except FileExistsError:
        return False
    finally:
        temporary.unlink()
    _sync_directory(file.parent)
    return True


def cannot(file: Path, what: str, error: OSError) -> OperatorError:
    """What to tell the operator if `file` cannot `what` ("be read")."""
    return OperatorError(f"{file}: cannot {what}: {error.strerror}: run as root, or check its directory")


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
    finally:
        os.close(descriptor)
