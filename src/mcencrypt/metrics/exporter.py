"""The exporter: a process without keys and rights that answers HTTP, and asks the daemon for each answer.

Started by `supervisor` with two descriptors: a listening TCP socket, and a UNIX socket of messages
(SOCK_SEQPACKET), on which a request is a number and the answer ``{"id": number, "snapshot": {...}}``.  It ends when the
daemon does.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import logging
import os
import signal
import socket
import socketserver
import sys
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from mcencrypt import logs
from mcencrypt.metrics.families import families

if TYPE_CHECKING:
    from mcencrypt.metrics.snapshot import Snapshot

log = logging.getLogger(__name__)

#: Connections at one time; one more closes the oldest.
MAX_CLIENTS: Final = 8
#: Seconds that a client may be silent.
CLIENT_TIMEOUT: Final = 5.0
#: Seconds that the daemon may take for its answer; then the scrape fails.
DAEMON_TIMEOUT: Final = 3.0
#: Seconds for which a snapshot is served again: however many clients ask, the daemon hears of five a second.
FRESH: Final = 0.2
NOBODY: Final = 65534
MAX_MESSAGE: Final = 1 << 16
OPENMETRICS: Final = "application/openmetrics-text; version=1.0.0"

_ANY = ("*/*", OPENMETRICS)
_CAPABILITY_VERSION_3 = 0x20080522


class NoAnswer(Exception):
    """The daemon did not answer in time."""


class Source:
    """The daemon's end, for any number of threads; `receive` runs in one."""

    def __init__(self, channel: socket.socket, clock: Callable[[], float] = time.monotonic) -> None:
        self._channel, self._clock = channel, clock
        self._asking = threading.Lock()
        self._arrived = threading.Condition()
        self._answer: tuple[int, Snapshot | None] = (0, None)
        self._number = 0
        self._at = float("-inf")

    def receive(self) -> None:
        """Take answers until the daemon is gone."""
        while message := self._channel.recv(MAX_MESSAGE):
            answer = json.loads(message)
            with self._arrived:
                self._answer = int(answer["id"]), answer["snapshot"]
                self._arrived.notify_all()

    def snapshot(self) -> Snapshot:
        """A snapshot at most `FRESH` seconds old.  Raises NoAnswer."""
        with self._asking:
            if self._clock() - self._at > FRESH:
                self._ask()
            snapshot = self._answer[1]
            assert snapshot is not None
            return snapshot

    def _ask(self) -> None:
        self._number += 1
        try:
            self._channel.send(str(self._number).encode(), socket.MSG_DONTWAIT)
        except OSError as problem:
            raise NoAnswer("the daemon does not take requests") from problem
        with self._arrived:
            if not self._arrived.wait_for(lambda: self._answer[0] == self._number, DAEMON_TIMEOUT):
                raise NoAnswer(f"the daemon did not answer within {DAEMON_TIMEOUT:g} s")
        self._at = self._clock()


class _Snapshots(Collector):
    def __init__(self, snapshot: Callable[[], Snapshot]) -> None:
        self._snapshot = snapshot

    def collect(self) -> Iterable[Metric]:
        return families(self._snapshot())


class Server(socketserver.ThreadingMixIn, HTTPServer):
    """``GET /metrics`` on a socket that listens already, a thread for each of few clients."""

    daemon_threads = True

    def __init__(self, listener: socket.socket, snapshot: Callable[[], Snapshot]) -> None:
        super().__init__(listener.getsockname()[:2], _Handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener
        self.registry = CollectorRegistry(auto_describe=False)
        self.registry.register(_Snapshots(snapshot))
        self._clients: dict[Any, None] = {}
        self._lock = threading.Lock()

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            if len(self._clients) >= MAX_CLIENTS:
                oldest = next(iter(self._clients))
                del self._clients[oldest]
                with contextlib.suppress(OSError):
                    oldest.shutdown(socket.SHUT_RDWR)  # wakes its thread, which closes it
            self._clients[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._clients.pop(request, None)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        problem = sys.exc_info()[1]
        if not isinstance(problem, OSError):  # those are the client's
            log.error("metrics: internal error", exc_info=problem)


class _Handler(BaseHTTPRequestHandler):
    server: Server
    timeout = CLIENT_TIMEOUT
    protocol_version = "HTTP/1.1"
    server_version = "mcencrypt"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path == "/":
            self._reply(200, "text/plain; charset=utf-8", b"mcencrypt: metrics are at /metrics\n")
        elif path != "/metrics":
            self._reply(404, "text/plain; charset=utf-8", b"not found: metrics are at /metrics\n")
        else:
            encode, content_type = choose_encoder(self.headers.get("Accept") or "")
            try:
                self._reply(200, content_type, encode(self.server.registry))
            except NoAnswer as problem:
                self._reply(503, "text/plain; charset=utf-8", f"{problem}\n".encode())

    do_HEAD = do_GET  # noqa: N815

    def _reply(self, status: int, content_type: str, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: a log line for each scrape helps nobody, and strangers could write them."""


def shed_rights() -> None:
    """Become nobody, if we may; give up all capabilities in any case, for good."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    if os.geteuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(NOBODY, NOBODY, NOBODY)
            os.setresuid(NOBODY, NOBODY, NOBODY)
    header, nothing = (ctypes.c_uint32 * 2)(_CAPABILITY_VERSION_3, 0), (ctypes.c_uint32 * 6)()
    libc.capset(header, nothing)


def main(listener_fd: int, channel_fd: int, log_format: str) -> None:
    """Serve until the daemon is gone."""
    logs.setup("info", form=log_format)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C in a terminal ends the daemon, and that ends us
    channel = socket.socket(fileno=channel_fd)
    source = Source(channel)
    server = Server(socket.socket(fileno=listener_fd), source.snapshot)
    for accept in _ANY:
        choose_encoder(accept)[0](CollectorRegistry())  # what is imported lazily, while we may read it
    shed_rights()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with contextlib.suppress(OSError):
        source.receive()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
