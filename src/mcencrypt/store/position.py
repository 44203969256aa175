"""The position in which the operator left things: the on/off switch, and the mode that `mcencrypt mode` has set.

Both are kept in the state directory.  The mode there is stronger than the configuration.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from mcencrypt.core.policy import Mode
from mcencrypt.store.files import cannot, remove_file, replace_file

_NAME = "mode"


def read_switch(state_dir: Path) -> bool:
    """Whether encryption was left on; on if nothing, or nothing sensible, is recorded. Raises OperatorError."""
    file = state_dir / "switch"
    try:
        return file.read_bytes().strip() != b"off"
    except FileNotFoundError:
        return True
    except OSError as error:
        raise cannot(file, "be read", error) from None


def write_switch(state_dir: Path, enabled: bool) -> None:
    """Record whether encryption is on; on disk when this returns. Raises OperatorError."""
    file = state_dir / "switch"
    if enabled and not _is_there(file):
        return  # as it is read
    replace_file(file, b"on\n" if enabled else b"off\n")


def _is_there(file: Path) -> bool:
    try:
        os.lstat(file)
    except FileNotFoundError:
        return False
    except OSError as error:
        raise cannot(file, "be read", error) from None
    return True


def read_ports(state_dir: Path) -> tuple[int, ...]:
    """The P2P ports when encryption was last on, for a time when the configuration cannot be read; () if not known.

    Raises OperatorError.
    """
    file = state_dir / "ports"
    try:
        words = file.read_bytes().split()
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise cannot(file, "be read", error) from None
    return tuple(int(word) for word in words if word.isdigit() and 0 < int(word) <= 65535)


def write_ports(state_dir: Path, ports: Sequence[int]) -> None:
    """Remember the P2P ports; on disk when this returns. Raises OperatorError."""
    replace_file(state_dir / "ports", " ".join(map(str, ports)).encode() + b"\n")


def read_mode(state_dir: Path) -> Mode | None:
    """ "require" or "prefer"; None if the configuration decides. What makes no sense counts as the stricter one.

    Raises OperatorError.
    """
    file = state_dir / _NAME
    try:
        text = file.read_bytes().strip()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise cannot(file, "be read", error) from None
    return "prefer" if text == b"prefer" else "require"


def write_mode(state_dir: Path, mode: Mode | None) -> None:
    """Remember a mode, or None: that the configuration decides. Raises OperatorError."""
    file = state_dir / _NAME
    if mode is not None:
        replace_file(file, mode.encode() + b"\n")
    else:
        remove_file(file)
