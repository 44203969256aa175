"""Who is at the other end of the control socket: as the kernel recorded it, and as /proc shows that process."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from typing import NamedTuple

_UCRED = struct.Struct("3i")
#: What the kernel shows where nobody has logged in: a service, a container.
_NO_LOGIN = 0xFFFFFFFF
_LONGEST = 200


class Caller(NamedTuple):
    """A process that asked for something."""

    pid: int
    uid: int
    #: Of the login that it began with, through su and sudo (pam_loginuid(8)); None if that is not known.
    login_uid: int | None
    #: Its command line, in part; "" if it has ended.
    words: str


def caller(connection: socket.socket, proc: Path = Path("/proc")) -> Caller:
    """Who connected this UNIX socket."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _UCRED.size)
    pid, uid, _gid = _UCRED.unpack(raw)
    login, words = None, ""
    with contextlib.suppress(OSError, ValueError):
        found = int((proc / str(pid) / "loginuid").read_text())
        login = None if found == _NO_LOGIN else found
    with contextlib.suppress(OSError):
        text = (proc / str(pid) / "cmdline").read_bytes().decode(errors="replace").rstrip("\0").replace("\0", " ")
        words = "".join(letter if letter.isprintable() else "?" for letter in text)[:_LONGEST]
    return Caller(pid, uid, login, words)
