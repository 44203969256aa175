"""What the Docker engine knows of a container, asked over its UNIX socket.

Docker Engine API: ``GET /containers/{id}/json`` (State.Pid, State.Running) and ``GET /events``, a stream of JSON
objects. Podman's service answers the same requests.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

from mcencrypt.errors import OperatorError

DEFAULT_SOCKET: Final = "/var/run/docker.sock"
_TIMEOUT: Final = 5.0  # seconds
_CHUNK: Final = 1 << 16
_REPLY_MAX: Final = 4 << 20


class NoEngineError(OperatorError):
    """The engine cannot be asked now."""


class Engine:
    """The engine that `DOCKER_HOST` names if it is a UNIX socket, by default /var/run/docker.sock."""

    def __init__(self, environ: Mapping[str, str] = os.environ) -> None:
        """Raises OperatorError if DOCKER_HOST names an engine that is not on this machine."""
        host = environ.get("DOCKER_HOST") or f"unix://{DEFAULT_SOCKET}"
        scheme, _, self.path = host.partition("://")
        if scheme != "unix":
            raise OperatorError(
                f"DOCKER_HOST is {host}, but the container must run on this machine: set it to unix:///PATH"
            )

    def first_process(self, container: str) -> int | None:
        """The process id of a running container, 0 if it does not run, None if there is none of that name.

        Raises NoEngineError if the engine does not answer now, OperatorError if this user may not ask it.
        """
        connection = self._ask(f"/containers/{quote(container, safe='')}/json")
        try:
            reply = connection.getresponse()
            body = reply.read(_REPLY_MAX)
        except (OSError, http.client.HTTPException) as error:
            raise NoEngineError(f"the Docker engine at {self.path} broke off its answer: {error}") from None
        finally:
            connection.close()
        if reply.status == 404:
            return None
        try:
            answer: Any = json.loads(body)
            if reply.status != 200:
                raise NoEngineError(f"the Docker engine at {self.path} refused: {answer['message']}")
            state = answer["State"]
            return int(state["Pid"]) if state["Running"] else 0
        except (ValueError, KeyError, TypeError):
            raise NoEngineError(
                f"what answers at {self.path} is not a Docker engine (HTTP status {reply.status}): check DOCKER_HOST"
            ) from None

    def starts(self, container: str) -> Starts:
        """A stream that tells of every start of this container from now on. Raises NoEngineError."""
        filters = {"type": ["container"], "event": ["start"], "container": [container]}
        connection = self._ask(f"/events?filters={quote(json.dumps(filters))}")
        raw = connection.sock
        return Starts(connection, raw)

    def _ask(self, target: str) -> http.client.HTTPConnection:
        connection = _UnixConnection(self.path)
        try:
            connection.request("GET", target)
        except FileNotFoundError:
            raise NoEngineError(
                f"there is no Docker engine at {self.path}: start it, or name its socket with DOCKER_HOST=unix:///PATH"
            ) from None
        except PermissionError:
            raise OperatorError(f"you may not use the Docker engine at {self.path}: run this as root") from None
        except OSError as error:
            raise NoEngineError(
                f"the Docker engine at {self.path} does not answer: {error.strerror or error}: see whether it runs"
            ) from None
        return connection


class Starts:
    """Events of the engine, for a loop: `fileno()` is readable when one has come or the engine has gone."""

    def __init__(self, connection: http.client.HTTPConnection, raw: socket.socket) -> None:
        self._connection, self._socket = connection, raw
        raw.setblocking(False)

    def fileno(self) -> int:
        return self._socket.fileno()

    def read(self) -> bool:
        """Read what has come; False once the engine has ended the stream. What it says does not matter: look anew."""
        while True:
            try:
                if not self._socket.recv(_CHUNK):
                    return False
            except BlockingIOError:
                return True
            except OSError:
                return False

    def close(self) -> None:
        self._connection.close()


class _UnixConnection(http.client.HTTPConnection):
    """HTTP over a UNIX socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=_TIMEOUT)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
