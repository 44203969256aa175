"""The mode that `mcencrypt mode` has set: kept in the state directory, and stronger than the configuration."""

from __future__ import annotations

from pathlib import Path

from mcencrypt.errors import OperatorError
from mcencrypt.keys import replace_file

_NAME = "mode"


def read_mode(state_dir: Path) -> str | None:
    """ "require" or "prefer"; None if the configuration decides. What makes no sense counts as the stricter one.

    Raises OperatorError.
    """
    file = state_dir / _NAME
    try:
        text = file.read_bytes().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OperatorError(f"{file}: cannot be read: {error.strerror}: run as root, or check its directory") from None
    return "prefer" if text == b"prefer" else "require"


def write_mode(state_dir: Path, mode: str | None) -> None:
    """Remember a mode, or None: that the configuration decides. Raises OperatorError."""
    file = state_dir / _NAME
    if mode is not None:
        replace_file(file, mode.encode() + b"\n")
        return
    try:
        file.unlink(missing_ok=True)
    except OSError as error:
        raise OperatorError(f"{file}: cannot be removed: {error.strerror}: run as root") from None
