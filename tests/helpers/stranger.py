"""Who sees nothing of a connection, and sends into it: real packets, beside the same ones for a plain connection."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from struct import pack, unpack_from

from lab import wait_for
from lab.middlebox import TO_A, TO_B, Frames
from lab.packets import ACK, SYN, TcpFrame, parse
from tests.helpers.pairs import EncryptedPair

WORD = 0xFFFFFFFF


class Watch:
    """Lets everything through, and knows the newest segment of each direction of each connection."""

    def __init__(self) -> None:
        self.newest: dict[tuple[int, str], TcpFrame] = {}
        #: The highest sequence number behind data, likewise.
        self.top: dict[tuple[int, str], int] = {}
        #: Seconds that each frame takes.
        self.delay = 0.0
        #: Once so many bytes of a connection are in flight toward b, everything is lost, both ways: so it stays.
        self.silent_beyond: int | None = None
        self.silent = False
        #: Segments without data that were seen in a direction.
        self.bare = {TO_A: 0, TO_B: 0}

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        segment = parse(frame)
        if self.silent:
            return []
        if segment is not None and not segment.flags & SYN:
            key = segment.ports[0 if toward == TO_A else 1], toward
            self.newest[key] = segment
            end = segment.sequence + len(segment.payload) & WORD
            if end - self.top.get(key, end) & WORD < 1 << 31:
                self.top[key] = end
            self.bare[toward] += not segment.payload
            if self.silent_beyond is not None and toward == TO_B and self.in_flight(key[0]) > self.silent_beyond:
                self.silent = True
        return [(self.delay, frame)]

    def in_flight(self, port: int) -> int:
        """Bytes toward this port of b that are not acknowledged on the wire."""
        return self.top[port, TO_B] - self.newest[port, TO_A].acknowledgement & WORD

    def hear_again(self) -> None:
        """The end of a silence."""
        self.silent_beyond, self.silent = None, False


def timestamps_of(segment: TcpFrame) -> tuple[int, int] | None:
    """TSval and TSecr, as Linux places them."""
    return unpack_from("!II", segment.options, 4) if segment.options[:4] == b"\x01\x01\x08\x0a" else None


class Talk:
    """A connection from host a to a port of host b, both sockets in this process."""

    def __init__(self, pair: EncryptedPair, watch: Watch, port: int, version: int = 4, silent: bool = False) -> None:
        """`silent`: b has not sent anything when this returns."""
        self.pair, self.watch, self.port = pair, watch, port
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        with pair.b.socket(family) as listening:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind((pair.b.address(version), port))
            listening.listen(1)
            self.a = pair.a.socket(family)
            self.a.settimeout(10)
            self.a.connect((pair.b.address(version), port))
            self.b = listening.accept()[0]
        for one in (self.a, self.b):
            one.settimeout(60)  # a sender that lost much waits long, on a busy machine
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.says(self.a, self.b, 100)
        if not silent:
            self.says(self.b, self.a, 100)

    def close(self) -> None:
        for one in (self.a, self.b):
            one.close()

    def says(self, sender: socket.socket, reader: socket.socket, size: int) -> None:
        """What one end writes is what the other reads; raises OSError or AssertionError otherwise."""
        data = random.Random(size).randbytes(size)

        def send() -> None:
            with contextlib.suppress(OSError):  # the reader finds out
                sender.sendall(data)

        sending = threading.Thread(target=send)
        sending.start()
        try:
            got = bytearray()
            while len(got) < size:
                more = reader.recv(1 << 16)
                assert more, "the stream ended"
                got += more
            assert got == data
        finally:
            sending.join()

    def exchange(self, size: int = 1000) -> None:
        """Both ways."""
        self.says(self.a, self.b, size)
        self.says(self.b, self.a, size)

    def is_quiet(self) -> bool:
        """Whether all that was sent is acknowledged on the wire, both ways."""
        to_a, to_b = self.newest(TO_A), self.newest(TO_B)
        return all(
            one.acknowledgement == other.sequence + len(other.payload) & WORD
            for one, other in ((to_a, to_b), (to_b, to_a))
        )

    def wait_quiet(self) -> None:
        wait_for(self.is_quiet, "all to be acknowledged", 10)

    def newest(self, toward: str) -> TcpFrame:
        """The newest segment toward a side."""
        return self.watch.newest[self.port, toward]

    def in_flight(self) -> int:
        """Bytes toward b that are not acknowledged on the wire."""
        return self.watch.in_flight(self.port)

    def forged(
        self,
        toward: str,
        seq: int,
        ack: int = 0,
        flags: int = ACK,
        payload: bytes = b"",
        stamp: int | None = None,
        window: int = 500,
    ) -> TcpFrame:
        """A segment toward a side, as if the other had sent it."""
        options = b"" if stamp is None else b"\x01\x01\x08\x0a" + pack("!II", stamp & WORD, 0)
        return replace(
            self.newest(toward), sequence=seq & WORD, acknowledgement=ack & WORD, flags=flags, window=window,
            options=options, payload=payload,
        )  # fmt: skip

    def inject(self, toward: str, *segments: TcpFrame) -> None:
        self.pair.box.inject_all([(toward, segment.packed()) for segment in segments])


@contextlib.contextmanager
def talks(pair: EncryptedPair, ports: tuple[int, ...], version: int = 4, silent: bool = False) -> Iterator[list[Talk]]:
    """A connection for each port, with one watcher on the path."""
    watch = Watch()
    pair.box.behaviour = watch
    with contextlib.ExitStack() as held:
        found = []
        for port in ports:
            talk = Talk(pair, watch, port, version, silent)
            held.callback(talk.close)
            found.append(talk)
        yield found
