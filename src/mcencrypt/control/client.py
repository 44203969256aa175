"""The control socket: how the command line talks to a running daemon.

UNIX stream socket ``run_dir/control.sock``, one JSON object per line: ``{"command": NAME, "replies": VERSION,
...arguments}`` is answered as `replies` says. A daemon that makes replies of another version does nothing and says so.
Whoever may open the socket may turn encryption off, so it is 0600, and both ends ask the kernel who the other one is
(SO_PEERCRED, unix(7)).
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import struct
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.control import replies

SOCKET_NAME = "control.sock"
#: What members of `status_group` may use, and for what.
STATUS_SOCKET = "status.sock"
READ_ONLY = ("ping", "status", "peers")
#: Of the `replies`. Grows when a field is taken away or comes to mean something else; fields may be added without.
VERSION = 1
#: Longest reply that a client reads, in bytes.
MAX_REPLY = 64 * 1024 * 1024
_SUN_PATH = 107  # sizeof(sockaddr_un.sun_path) less its NUL
_CHUNK = 64 * 1024


class NoDaemonError(OperatorError):
    """Nothing listens on the control socket (as against: a daemon is there, but refused or failed)."""


class ForbiddenError(OperatorError):
    """The socket is there, and this user may not use it."""


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


@overload
def request(run_dir: Path, command: Literal["ping"], timeout: float = ...) -> replies.Ping: ...
@overload
def request(run_dir: Path, command: Literal["on"], timeout: float = ...) -> replies.On: ...
@overload
def request(run_dir: Path, command: Literal["off"], timeout: float = ..., *, now: bool = ...) -> replies.Off: ...
@overload
def request(run_dir: Path, command: Literal["status"], timeout: float = ...) -> replies.Status: ...
@overload
def request(
    run_dir: Path,
    command: Literal["mode"],
    timeout: float = ...,
    *,
    mode: str | None = ...,
    from_config: bool = ...,
    confirmed: bool = ...,
) -> replies.ModeShown: ...
@overload
def request(run_dir: Path, command: Literal["reload"], timeout: float = ...) -> replies.Reloaded: ...
@overload
def request(run_dir: Path, command: Literal["peers"], timeout: float = ...) -> replies.Peers: ...
@overload
def request(run_dir: Path, command: Literal["peers-changed"], timeout: float = ...) -> replies.PeersChanged: ...
@overload
def request(
    run_dir: Path, command: Literal["peers-forget"], timeout: float = ..., *, address: str
) -> replies.PeersForgotten: ...
@overload
def request(
    run_dir: Path,
    command: Literal["probe"],
    timeout: float = ...,
    *,
    address: str,
    port: int,
    key_id: str | None = ...,
    carrier: Literal["syn", "stream"] = ...,
    seconds: float = ...,
) -> replies.Probed: ...
@overload
def request(run_dir: Path, command: Literal["key-add"], timeout: float = ..., *, key: str) -> replies.KeyAdded: ...
@overload
def request(
    run_dir: Path, command: Literal["key-use"], timeout: float = ..., *, id: str, force: bool = ...
) -> replies.KeyUsed: ...
@overload
def request(
    run_dir: Path, command: Literal["key-retire"], timeout: float = ..., *, id: str, force: bool = ...
) -> replies.KeyRetired: ...
def request(run_dir: Path, command: str, timeout: float = 10.0, **args: Any) -> object:
    """Ask the daemon of `run_dir` and return its result.

    `timeout`: seconds for the whole exchange; `args`: the command's arguments, anything that JSON can say. Raises
    NoDaemonError if none answers there, and OperatorError if it refused or failed, took too long, is of another
    version, or may not be asked by this user. What only shows is asked at the status socket where the other one may
    not be used.
    """
    try:
        return _ask(run_dir / SOCKET_NAME, command, timeout, args)
    except ForbiddenError as forbidden:
        if command not in READ_ONLY:
            raise
        try:
            return _ask(run_dir / STATUS_SOCKET, command, timeout, args)
        except (ForbiddenError, NoDaemonError):
            raise forbidden from None


def _ask(path: Path, command: str, timeout: float, args: dict[str, Any]) -> dict[str, object]:
    check_length(path)
    deadline = time.monotonic() + timeout
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        try:
            connection.settimeout(timeout)
            connection.connect(str(path))
            if peer_uid(connection) not in (0, os.geteuid()):
                raise OperatorError(f"{path} belongs to another user, not to a daemon of yours or root's")
            with contextlib.suppress(BrokenPipeError):  # a daemon that refuses us has said so and hung up
                connection.sendall(json.dumps({**args, "command": command, "replies": VERSION}).encode() + b"\n")
            line = _read_line(connection, deadline)
        except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError):
            raise NoDaemonError(
                f"no daemon answers at {path}: start it with `mcencrypt on` or `systemctl start mcencrypt`"
            ) from None
        except PermissionError:
            raise ForbiddenError(
                f"you may not use {path}: run this as root (what only shows: or be in status_group)"
            ) from None
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


def _result(line: bytes, path: Path) -> dict[str, object]:
    if not line.endswith(b"\n"):
        raise OperatorError(f"the daemon at {path} broke off its answer: look at its log")
    try:
        reply = json.loads(line)
        if reply["ok"]:
            # one from before they had a number is of the first
            version, result = int(reply.get("replies", 1)), reply["result"]
            if not isinstance(result, dict):
                raise TypeError
            if version == VERSION:
                return result
            error = (
                f"the daemon at {path} gives answers of version {version}, this command reads {VERSION}: "
                "restart the daemon, so that both are of one version"
            )
        else:
            error = str(reply["error"])
    except (ValueError, KeyError, TypeError, AttributeError):
        raise OperatorError(f"what answers at {path} is not a daemon of mcencrypt") from None
    raise OperatorError(error)
