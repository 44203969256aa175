"""A relay in the test's hands: it ends TCP on its way, as relays do, and passes on what the test says."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Literal

from lab import PATIENCE, Host
from tests.helpers.relays import Leg

#: From the one that dials to the one that answers, or back.
Direction = Literal["there", "back"]
_PIECE = 16384


class Link:
    """One connection through it: the sockets of both legs, and what has come in by each."""

    def __init__(self, number: int, dialler: socket.socket, answerer: socket.socket) -> None:
        #: How many came before it.
        self.number = number
        self._sockets = {"there": (dialler, answerer), "back": (answerer, dialler)}
        self._seen = {"there": bytearray(), "back": bytearray()}

    def seen(self, direction: Direction) -> bytes:
        """All that has come that way so far."""
        return bytes(self._seen[direction])

    def send(self, direction: Direction, data: bytes) -> None:
        """Send something that way."""
        self._sockets[direction][1].sendall(data)

    def end(self, direction: Direction) -> None:
        """End the stream that way, as if whoever writes it had."""
        self._sockets[direction][1].shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for one in self._sockets["there"]:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()

    def pump(self, direction: Direction, change: Change) -> None:
        """Pass on what comes, until it ends; an end of one leg is one of the other, as with all relays."""
        source, sink = self._sockets[direction]
        with contextlib.suppress(OSError):
            while data := source.recv(_PIECE):
                before = len(self._seen[direction])
                self._seen[direction] += data
                sink.sendall(change(self, direction, before, data))
        with contextlib.suppress(OSError):
            sink.shutdown(socket.SHUT_WR)


#: What to pass on for the bytes at that offset of the stream; it may use the link as well.
Change = Callable[[Link, Direction, int, bytes], bytes]


def honest(link: Link, direction: Direction, offset: int, data: bytes) -> bytes:
    """What comes."""
    return data


class HostileRelay:
    """It listens on a host, and dials on for whoever comes; `change` says what it passes on."""

    def __init__(self, host: Host, listen: Leg, to: Leg, change: Change = honest) -> None:
        self.links: list[Link] = []
        self.change = change
        self._host, self._to = host, to
        self._listening = host.socket()
        self._listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listening.bind((listen.address, listen.port))
        self._listening.listen(64)
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                dialler, _ = self._listening.accept()
                answerer = self._host.socket()
                answerer.settimeout(PATIENCE)
                answerer.connect((self._to.address, self._to.port))
                answerer.settimeout(None)
                link = Link(len(self.links), dialler, answerer)
                self.links.append(link)
                ways: tuple[Direction, Direction] = ("there", "back")
                for way in ways:
                    threading.Thread(target=link.pump, args=(way, self._changed), daemon=True).start()

    def _changed(self, link: Link, direction: Direction, offset: int, data: bytes) -> bytes:
        return self.change(link, direction, offset, data)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        for link in self.links:
            link.close()


@contextlib.contextmanager
def hostile_relay(host: Host, listen: Leg, to: Leg, change: Change = honest) -> Iterator[HostileRelay]:
    """One while the context lasts."""
    relay = HostileRelay(host, listen, to, change)
    try:
        yield relay
    finally:
        relay.close()
