"""The control socket: how the command line talks to a running daemon.

UNIX stream socket ``run_dir/control.sock``, one JSON object per line: ``{"command": NAME, ...arguments}`` is
answered by ``{"ok": true, "result": {...}}`` or ``{"ok": false, "error": "one line"}``. Whoever may open the
socket may turn encryption off, so it is 0600, and both ends ask the kernel who the other one is (SO_PEERCRED,
unix(7)).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from pathlib import Path
from typing import Any

from mcencrypt.errors import OperatorError

SOCKET_NAME = "control.sock"
MAX_REPLY = 64 * 1024 * 1024
"""Longest reply that a client reads, in bytes."""
_SUN_PATH = 107  # sizeof(sockaddr_un.sun_path) less its NUL
_CHUNK = 64 * 1024


class NoDaemonError(OperatorError):
    """Nothing listens on the control socket (as against: a daemon is there, but refused or failed)."""


def peer_uid(connection: socket.socket) -> int:
    """The user id of the process at the other end of a UNIX socket, as the kernel recorded it."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    _pid, uid, _gid = struct.unpack("3i", raw)
    return int(uid)


def check_length(path: Path) -> None:
    """Raises OperatorError for a path that no UNIX socket can have."""
    if len(os.fsencode(path)) > _SUN_PATH:
        raise OperatorError(
            f"the control socket's path {path} is longer than {_SUN_PATH} bytes: choose a shorter --run-dir"
        )


def request(run_dir: Path, command: str, timeout: float = 10.0, **args: Any) -> dict[str, Any]:
    """Ask the daemon of `run_dir` and return its result.

    Args:
        timeout: seconds for the whole exchange.
        args: the command's arguments, anything that JSON can say.

    Raises:
        NoDaemonError: none answers there.
        OperatorError: it refused or failed, took too long, or may not be asked by this user.
    """
    path = run_dir / SOCKET_NAME
    check_length(path)
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(timeout)
            connection.connect(str(path))
            if peer_uid(connection) not in (0, os.geteuid()):
                raise OperatorError(f"{path} belongs to another user, not to a daemon of yours or root's")
            with contextlib.suppress(BrokenPipeError):  # a daemon that refuses us has said so and hung up
                connection.sendall(json.dumps({**args, "command": command}).encode() + b"\n")
            line = _read_line(connection, deadline)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NoDaemonError(
                f"no daemon answers at {path}: start it with `mcencrypt on` or `systemctl start mcencrypt`"
            ) from None
        except PermissionError:
            raise OperatorError(f"you may not use {path}: run this as root") from None
        except TimeoutError:
            raise OperatorError(
                f"the daemon at {path} did not answer `{command}` within {timeout:g} s: look at its log"
            ) from None
        except OSError as error:
            raise OperatorError(f"cannot talk to the daemon at {path}: {error.strerror}") from None
    return _result(line, path)


def _read_line(connection: socket.socket, deadline: float) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        remaining = deadline - time.monotonic()
        if remaining <= 0:
            raise TimeoutError
        connection.settimeout(remaining)
        data = connection.recv(_CHUNK)
        received += data
        if not data or len(received) > MAX_REPLY:
            break
    return bytes(received)


def _result(line: bytes, path: Path) -> dict[str, Any]:
    if not line.endswith(b"\n"):
        raise OperatorError(f"the daemon at {path} broke off its answer: look at its log")
    try:
        reply = json.loads(line)
        if reply["ok"]:
            result = reply["result"]
            if isinstance(result, dict):
                return result
        error = str(reply["error"])
    except (ValueError, KeyError, TypeError):
        raise OperatorError(f"what answers at {path} is not a daemon of mcencrypt") from None
    raise OperatorError(error)
