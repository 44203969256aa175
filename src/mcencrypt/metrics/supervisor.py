"""The daemon's part of its metrics: the listening socket, the exporter process, and an answer when it asks.

Costs the packet loop one short message for each scrape, ten a second at most whatever the exporter does.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import importlib.util
import json
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Final, Protocol

from mcencrypt.errors import OperatorError
from mcencrypt.logs import fields
from mcencrypt.metrics.snapshot import Snapshot
from mcencrypt.store.values import Listen

log = logging.getLogger(__name__)

#: Seconds after an answer in which no further question is heard, whoever may have got hold of the exporter.
REST: Final = 0.1
#: Seconds before an exporter that ended is started again: at first, doubled each time, and at most.
FIRST_PAUSE: Final = 1.0
LONGEST_PAUSE: Final = 60.0
#: An exporter that ran for so many seconds was not broken from the start.
LASTED: Final = 60.0
_BACKLOG: Final = 16


class Loop(Protocol):
    """What is used of `daemon.loop.Loop`."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None: ...

    def remove_reader(self, fd: int) -> None: ...

    def now(self) -> float: ...

    def call_at(self, when: float, callback: Callable[[], None]) -> None: ...


def listen(address: Listen) -> socket.socket:
    """A TCP socket that listens there.  Raises OperatorError."""
    name = f"metrics_listen: {address}"
    if importlib.util.find_spec("prometheus_client") is None:
        raise OperatorError(f"{name}: the Python package prometheus-client is missing: install it")
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as problem:
        listener.close()
        advice = {
            errno.EADDRINUSE: "another program listens there: choose another port",
            errno.EADDRNOTAVAIL: "no address of this host (or network namespace): choose one that `ip address` shows",
            errno.EACCES: "ports below 1024 need CAP_NET_BIND_SERVICE: choose a higher one",
        }
        said = advice.get(problem.errno or 0, problem.strerror)
        raise OperatorError(f"{name}: {said}") from None
    return listener


class Metrics:
    """Keeps an exporter running behind a listening socket."""

    def __init__(self, listener: socket.socket, snapshot: Callable[[], Snapshot], log_format: str) -> None:
        """`snapshot` is called in the loop's thread."""
        self._listener, self._snapshot, self._log_format = listener, snapshot, log_format
        self._channel: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._loop: Loop | None = None
        self._begun = 0.0
        self._pause = FIRST_PAUSE

    def start(self, loop: Loop) -> None:
        """Start the exporter, and again whenever it ends.  Raises nothing: packets do not depend on it."""
        self._loop = loop
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        self._begun = loop.now()
        passed = (self._listener.fileno(), theirs.fileno())
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "mcencrypt.metrics.exporter", *map(str, passed), self._log_format],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                cwd="/",
                env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))},
            )
        except OSError as problem:
            ours.close()
            log.error("the metrics exporter cannot be started", extra=fields(error=problem.strerror))
            self._later()
            return
        finally:
            theirs.close()
        self._channel = ours
        loop.add_reader(ours.fileno(), self._asked)

    def close(self) -> None:
        """End the exporter."""
        self._loop = None
        self._hang_up()
        self._listener.close()
        if self._process is not None:
            try:
                self._process.wait(1)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def _asked(self) -> None:
        assert self._channel is not None
        try:
            number = self._channel.recv(64)
        except BlockingIOError:
            return
        except OSError:
            number = b""
        if not number:
            self._ended()
            return
        assert self._loop is not None
        self._loop.remove_reader(self._channel.fileno())
        self._loop.call_at(self._loop.now() + REST, functools.partial(self._listen_again, self._channel))
        answer = json.dumps({"id": number.decode(), "snapshot": self._snapshot()}).encode()
        with contextlib.suppress(OSError):  # it does not read, and will ask again; or it is gone
            self._channel.send(answer)

    def _listen_again(self, channel: socket.socket) -> None:
        if self._loop is not None and channel is self._channel:
            self._loop.add_reader(channel.fileno(), self._asked)

    def _ended(self) -> None:
        assert self._process is not None and self._loop is not None
        self._hang_up()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._process.pid, 9)  # without its channel it is of no use
        status = self._process.wait()
        if self._loop.now() - self._begun > LASTED:
            self._pause = FIRST_PAUSE
        log.error("the metrics exporter ended and is started again", extra=fields(status=status, seconds=self._pause))
        self._later()

    def _later(self) -> None:
        if self._loop is not None:
            self._loop.call_at(self._loop.now() + self._pause, self._again)
            self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _again(self) -> None:
        if self._loop is not None:
            self.start(self._loop)

    def _hang_up(self) -> None:
        if self._channel is not None:
            if self._loop is not None:
                self._loop.remove_reader(self._channel.fileno())
            self._channel.close()
            self._channel = None
