"""A log that nobody reads, or that grows: packets do not wait for it, and it has an end."""

from __future__ import annotations

import contextlib
import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, direct_pair, wait_for
from mcencrypt.logwriter import FILE_LIMIT
from mcencrypt.store.keys import create_network_key
from tests.helpers.nodes import Node, needs_lab
from tests.helpers.pairs import talking

pytestmark = needs_lab


@contextlib.contextmanager
def stuck(kind: str) -> Iterator[tuple[int, int]]:
    """A descriptor into which nothing more fits, and the one where it could be read."""
    if kind == "pipe":
        reading, writing = os.pipe()
        fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, 4096)
    else:
        ends = socket.socketpair()
        reading, writing = (end.detach() for end in ends)
    os.set_blocking(writing, False)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(writing, b"\n" * 1024)
    os.set_blocking(writing, True)
    try:
        yield reading, writing
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("kind", ["pipe", "socket"])
def test_a_reader_of_the_log_that_is_stuck_stops_no_packet(kind: str) -> None:
    with direct_pair() as net, stuck(kind) as (reading, writing):
        key = net.lab.directory / "network.key"
        create_network_key(key)
        a, b = Node(net.a, key), Node(net.b, key)
        a.start()
        with b.host.enter():
            words = [str(word) for word in b._words("daemon")]
            daemon = subprocess.Popen(words, stderr=writing, env={**os.environ, **b._env})
        try:
            wait_for(b.answers, "the daemon to answer, though nobody reads what it logs", 20)
            with talking(_Pair(a, b)):
                assert b.connections("encrypted")
            os.set_blocking(reading, False)
            said = b""

            def read() -> bool:
                nonlocal said
                with contextlib.suppress(BlockingIOError):
                    said += os.read(reading, 1 << 16)
                return b"connection encrypted" in said

            wait_for(read, "what it had to say", 10)
            assert b"daemon is ready" in said
        finally:
            daemon.kill()
            daemon.wait()


class _Pair:
    """As much of a pair as `talking` needs."""

    def __init__(self, a: Node, b: Node) -> None:
        self.a, self.b = a, b


def test_a_log_file_has_an_end_while_its_daemon_runs(tmp_path: Path) -> None:
    file = tmp_path / "daemon.log"
    file.write_bytes(b"\n" * (FILE_LIMIT - 100))
    create_network_key(tmp_path / "network.key")
    with Lab() as lab:
        node = Node(lab.host("a"), tmp_path / "network.key")
        node.host.spawn(node._words("daemon", "--log-file", file), env=node._env)
        wait_for(node.answers, "the daemon to answer", 20)
        wait_for(lambda: "daemon is ready" in file.read_text(), "what it logs", 10)
        aside = (tmp_path / "daemon.log.1").stat().st_size
        assert FILE_LIMIT - 100 <= aside <= FILE_LIMIT and file.stat().st_size < FILE_LIMIT // 2
