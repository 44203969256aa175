"""Ends that behave badly: they stop reading, are short of memory, come back at the same address, or from a reboot."""

from __future__ import annotations

import contextlib
import errno
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

from lab.behaviours import Chain, Drop, Reorder
from lab.middlebox import Frames, passing
from lab.namespace import LabError, wait_for
from lab.packets import RST, parse
from lab.streams import Comparison, content

from .firewalls import both_set
from .network import Network
from .scenario import Scenario, Stage, Traffic

_PATIENCE = 30.0
_AT_ONCE = 65536


class _End:
    """One end of a connection in this process: what it read, and how that ended."""

    def __init__(self, sock: socket.socket, side: str, expected: int) -> None:
        self.sock, self.expected = sock, expected
        self.received, self.error = 0, None if sock else "refused"
        self._comparison = Comparison(1, "server" if side == "client" else "client", 0)
        sock.settimeout(_PATIENCE)

    def read(self, size: int) -> None:
        """Up to that many bytes, until the stream ends or fails."""
        try:
            while size > 0:
                data = self.sock.recv(min(size, _AT_ONCE))
                if not data:
                    return
                self._comparison.take(data)
                self.received += len(data)
                size -= len(data)
        except TimeoutError:
            self.error = "not done in time"
        except OSError as problem:
            self.error = type(problem).__name__

    def report(self, seconds: float) -> dict[str, Any]:
        """As `lab.streams` makes it."""
        return {
            "error": self.error,
            "received": self.received,
            "expected": self.expected,
            "tampered": self._comparison.wrong,
            "seconds": seconds,
        }


def _listening(stage: Stage) -> socket.socket:
    """A listening socket on host b."""
    listener = stage.network.b.socket(socket.AF_INET6 if stage.version == 6 else socket.AF_INET)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((stage.network.b.address(stage.version), stage.port))
    listener.listen(16)
    listener.settimeout(_PATIENCE)
    return listener


def _dialled(stage: Stage, port: int = 0) -> socket.socket:
    """A connection from host a, from that local port. Raises OSError."""
    found: list[socket.socket] = []

    def dial() -> bool:
        sock = stage.network.a.socket(socket.AF_INET6 if stage.version == 6 else socket.AF_INET)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.settimeout(_PATIENCE)
        try:
            if port:
                sock.bind((stage.network.a.address(stage.version), port))
            sock.connect((stage.network.b.address(stage.version), stage.port))
        except OSError as problem:
            sock.close()
            if port and problem.errno == errno.EADDRNOTAVAIL:
                return False  # the last acknowledgement of the connection before is still under way
            raise
        found.append(sock)
        return True

    wait_for(dial, "the port to be free", _PATIENCE)
    return found[0]


def _written(sock: socket.socket, size: int, ending: bool = True) -> threading.Thread:
    """The client's stream, on its way in a thread; failures show at the other end."""

    def write() -> None:
        with contextlib.suppress(OSError):
            for chunk in content(1, "client", 0, size):
                sock.sendall(chunk)
            if ending:
                sock.shutdown(socket.SHUT_WR)

    sock.settimeout(None)
    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    return thread


def _stopping_reader(seconds: float, size: int) -> Any:
    """b reads a little, nothing for some seconds, and then the rest."""

    def play(stage: Stage) -> list[dict[str, Any]]:
        begun = time.monotonic()
        with _listening(stage) as listener, _dialled(stage) as one, listener.accept()[0] as other:
            end = _End(other, "server", size)
            writing = _written(one, size)
            end.read(10_000)
            time.sleep(seconds)  # it is about this time
            end.read(size)
            writing.join(_PATIENCE)
            return [end.report(time.monotonic() - begun)]

    return play


def _same_address_again(count: int, size: int) -> Any:
    """Connections one after the other between the same ports; b, which closes first, waits in TIME-WAIT."""

    def play(stage: Stage) -> list[dict[str, Any]]:
        reports = []
        port = 20_000 + stage.dice.randrange(10_000)
        with _listening(stage) as listener:
            for _ in range(count):
                begun = time.monotonic()
                with _dialled(stage, port) as one, listener.accept()[0] as other:
                    end = _End(other, "server", size)
                    writing = _written(one, size, ending=False)
                    end.read(size)
                    writing.join(_PATIENCE)
                    other.close()
                    one.settimeout(_PATIENCE)
                    with contextlib.suppress(OSError):
                        one.recv(1)
                    reports.append(end.report(time.monotonic() - begun))
        return reports

    return play


def _rebooted(stage: Stage) -> list[dict[str, Any]]:
    """b forgets all without a word; a, which writes on, hears of it, and dials anew."""
    box, begun = stage.network.box, time.monotonic()
    lost: list[bytes] = []

    def nothing(frame: bytes, toward: str, now: float) -> Frames:
        segment = parse(frame)
        if segment and segment.flags & RST:
            lost.append(frame)
        return []

    with _listening(stage) as listener, _dialled(stage) as one:
        with listener.accept()[0] as other:
            one.sendall(bytes(1000))
            other.recv(1000)
            box.behaviour = nothing
            other.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        wait_for(lambda: bool(lost), "b's socket to be gone, and what it said of that to be lost")
        stage.reboot()
        box.behaviour = passing
        first = _End(one, "client", 0)
        one.sendall(b"are you there")
        first.read(1)
        with _dialled(stage) as again, listener.accept()[0] as other:
            end = _End(other, "server", 100_000)
            _written(again, 100_000).join(_PATIENCE)
            end.read(100_001)
            second = end.report(time.monotonic() - begun)
        if not first.error or first.error == "not done in time":
            return [second, first.report(time.monotonic() - begun) | {"error": "not done in time"}]
        return [second]


def _pruning(network: Network) -> contextlib.AbstractContextManager[None]:
    return both_set(network, "net.ipv4.tcp_rmem", "4096 16384 24576")


@contextlib.contextmanager
def _cookies(network: Network) -> Iterator[None]:
    try:
        with both_set(network, "net.ipv4.tcp_syncookies", 2):
            yield
    except FileNotFoundError:
        raise LabError("this kernel has no SYN cookies") from None


SCENARIOS = (
    Scenario("reader-stops-70s", "b reads nothing for 70 s", play=_stopping_reader(70, 2_000_000), slow=True),
    Scenario("reader-stops-3s", "b reads nothing for 3 s", play=_stopping_reader(3, 2_000_000)),
    Scenario(
        "reader-stops-and-probes-are-lost",
        "b reads nothing for 3 s, and half of the acknowledgements are lost: the news of an open window, too",
        lambda dice: Drop(0.5, choose=lambda segment: not segment.payload and segment.flags == 16, dice=dice),
        play=_stopping_reader(3, 1_000_000),
    ),
    Scenario(
        "same-address",
        "12 connections one after the other between the same two ports: TIME-WAIT is reused",
        play=_same_address_again(12, 50_000),
    ),
    Scenario("reboot", "b reboots: a hears of it when it writes, and dials anew", play=_rebooted, resets=True),
    Scenario(
        "syn-cookies",
        "b answers SYNs with cookies (tcp_syncookies = 2)",
        setting=_cookies,
        traffic=Traffic(size=5e5, connections=8),
    ),
    Scenario(
        "pruning",
        "both have receive buffers of 24 KB, 2 % are lost and 5 % late: sockets drop what was out of order",
        lambda dice: Chain(Drop(0.02, dice=dice), Reorder(0.05, dice=dice)),
        setting=_pruning,
        traffic=Traffic(size=5e5),
    ),
    Scenario(
        "small-buffers",
        "sockets have buffers of 8 KB",
        traffic=Traffic(size=5e5, rcvbuf=4096, sndbuf=4096),
    ),
    Scenario(
        "small-buffers-lossy",
        "sockets have buffers of 8 KB, and 1 % are lost",
        lambda dice: Drop(0.01, dice=dice),
        traffic=Traffic(size=3e5, rcvbuf=4096, sndbuf=4096),
    ),
)
