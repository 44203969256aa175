"""The exporter over a socket pair, and its clients: the daemon at the other end is a thread."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

from lab import PATIENCE
from mcencrypt.metrics import exporter, supervisor
from mcencrypt.store.values import Listen
from tests.helpers.loopback import free_port, own_address


class Daemon:
    """The daemon's end of the channel, in a thread: answers unless it is told not to."""

    def __init__(self, snapshot: dict[str, Any]) -> None:
        self.snapshot, self.answers, self.asked = snapshot, True, 0
        self.channel, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        while number := self.channel.recv(64):
            self.asked += 1
            if self.answers:
                self.channel.send(json.dumps({"id": number.decode(), "snapshot": self.snapshot}).encode())


@contextlib.contextmanager
def exported(snapshot: dict[str, Any]) -> Iterator[tuple[Daemon, tuple[str, int]]]:
    """An exporter in this process; the daemon, and where it listens."""
    daemon = Daemon(snapshot)
    source = exporter.Source(daemon.theirs)
    listener = supervisor.listen(Listen(own_address(), free_port()))
    server = exporter.Server(listener, source.snapshot)
    serving = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    receiving = threading.Thread(target=source.receive, daemon=True)
    for thread in (serving, receiving):
        thread.start()
    try:
        yield daemon, listener.getsockname()
    finally:
        server.shutdown()
        server.server_close()
        daemon.theirs.shutdown(socket.SHUT_RDWR)
    for thread in (serving, receiving, daemon.thread):
        thread.join(PATIENCE)
        assert not thread.is_alive()


@contextlib.contextmanager
def served(snapshot: dict[str, Any]) -> Iterator[tuple[str, int]]:
    """The same, where the daemon is not asked for."""
    with exported(snapshot) as (_, address):
        yield address


def get(
    address: tuple[str, int], path: str = "/metrics", method: str = "GET", headers: dict[str, str] | None = None
) -> tuple[int, str, str]:
    """Status, content type and body of an answer."""
    connection = http.client.HTTPConnection(*address, timeout=PATIENCE)
    with contextlib.closing(connection):
        connection.request(method, path, headers=headers or {})
        response = connection.getresponse()
        return response.status, response.getheader("Content-Type") or "", response.read().decode()


def text_of(snapshot: dict[str, Any], accept: str = "") -> tuple[str, str]:
    """A snapshot as an exporter shows it, and its content type."""
    with served(snapshot) as address:
        status, content_type, body = get(address, headers={"Accept": accept})
    assert status == 200
    return body, content_type
