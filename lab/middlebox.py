"""A hostile middlebox: sits on a link and does to the frames what a Python function says.

It is a namespace without addresses between two links; raw sockets take each frame that comes in on one side
and, when and if the behaviour says so, put it out on the other. It runs in a thread of the calling process,
so that a test can look into its behaviour's state and change it on the way.
"""

from __future__ import annotations

import contextlib
import heapq
import itertools
import os
import selectors
import socket
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from .host import Host, Offloads
from .net import Lab
from .topology import Pair, number_hosts

_ETH_P_ALL, _SOL_PACKET, _PACKET_IGNORE_OUTGOING, _SO_RCVBUFFORCE = 3, 263, 23, 33
_BUFFER = 64 << 20
_TICK = 0.005
_LARGEST = 262144

#: Frames to send, each after so many seconds.
Frames = list[tuple[float, bytes]]

TO_A, TO_B = "a", "b"


@runtime_checkable
class Behaviour(Protocol):
    """What happens to a frame: called with each one, the side it travels to ("a" or "b") and the time
    (seconds, monotonic); returns the frames that go there instead. A plain function will do.
    """

    def __call__(self, frame: bytes, toward: str, now: float) -> Frames:
        """Frames to send instead of this one."""


@runtime_checkable
class Holding(Protocol):
    """A behaviour that keeps frames back also has this, called every 5 ms."""

    def tick(self, now: float) -> list[tuple[str, bytes]]:
        """Frames, each with the side it goes to, that have been kept long enough."""


def passing(frame: bytes, toward: str, now: float) -> Frames:
    """Let everything through."""
    return [(0.0, frame)]


class Middlebox:
    """Forwards frames between the interfaces `a` and `b` of a host that has no other purpose."""

    def __init__(self, host: Host, behaviour: Behaviour = passing) -> None:
        self.host = host
        #: May be replaced while it runs.
        self.behaviour = behaviour
        #: Frames sent by direction.
        self.forwarded = {TO_A: 0, TO_B: 0}
        #: Frames that a link would not take, being longer than its MTU or too many at once: lost, as on any link.
        self.refused = 0
        #: What the behaviour raised, if it did; that frame is lost and the first failure kept.
        self.failure: Exception | None = None
        self._queue: list[tuple[float, int, str, bytes]] = []
        self._order = itertools.count()
        self._lock = threading.Lock()
        self._sockets = {side: self._open(side) for side in (TO_A, TO_B)}
        self._wake, self._woken = os.pipe()[::-1]
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name=f"middlebox {host.name}", daemon=True)

    @property
    def waiting(self) -> int:
        """Frames that are delayed, or were injected and are not sent as yet."""
        with self._lock:
            return len(self._queue)

    def inject(self, frame: bytes, toward: str, delay: float = 0.0) -> None:
        """Send a frame of our own, from any thread, after `delay` seconds. The behaviour does not see it."""
        self.inject_all([(toward, frame)], delay)

    def inject_all(self, frames: Iterable[tuple[str, bytes]], delay: float = 0.0) -> None:
        """The same for many, each with the side it goes to: the box is woken once, and not between two of them."""
        with self._lock:
            due = time.monotonic() + delay
            for toward, frame in frames:
                heapq.heappush(self._queue, (due, next(self._order), toward, frame))
        os.write(self._wake, b"x")

    def __enter__(self) -> Middlebox:
        self._thread.start()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._stopping = True
        os.write(self._wake, b"x")
        self._thread.join()
        for descriptor in (self._wake, self._woken):
            os.close(descriptor)
        for opened in self._sockets.values():
            opened.close()
        if kind is None:
            self.raise_failure()

    def raise_failure(self) -> None:
        """Raise what the behaviour raised since this was asked last, if it did."""
        failure, self.failure = self.failure, None
        if failure:
            raise failure

    def _open(self, interface: str) -> socket.socket:
        opened = self.host.socket(socket.AF_PACKET, socket.SOCK_RAW)
        opened.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
        opened.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        # its protocol comes last: with it the socket begins to receive
        opened.bind((interface, _ETH_P_ALL))
        opened.setblocking(False)
        return opened

    def _run(self) -> None:
        buffer = memoryview(bytearray(_LARGEST))
        with selectors.DefaultSelector() as selector:
            selector.register(self._woken, selectors.EVENT_READ)
            for side, opened in self._sockets.items():
                selector.register(opened, selectors.EVENT_READ, TO_B if side == TO_A else TO_A)
            while not self._stopping:
                for key, _ in selector.select(self._timeout()):
                    if key.data is None:
                        os.read(self._woken, 4096)
                    else:
                        self._take(self._sockets[TO_A if key.data == TO_B else TO_B], key.data, buffer)
                if isinstance(self.behaviour, Holding):
                    with self._keeping():
                        for toward, frame in self.behaviour.tick(time.monotonic()):
                            self._push(0.0, toward, frame)
                self._send_due()

    def _timeout(self) -> float:
        with self._lock:
            due = self._queue[0][0] - time.monotonic() if self._queue else 1.0
        return max(0.0, min(due, _TICK if isinstance(self.behaviour, Holding) else 1.0))

    def _take(self, source: socket.socket, toward: str, buffer: memoryview) -> None:
        # bounded, so that one busy side does not keep the other from being served
        for _ in range(64):
            try:
                length = source.recv_into(buffer)
            except BlockingIOError:
                return
            with self._keeping():
                for delay, frame in self.behaviour(bytes(buffer[:length]), toward, time.monotonic()):
                    self._push(delay, toward, frame)

    @contextlib.contextmanager
    def _keeping(self) -> Iterator[None]:
        """What a behaviour raises is for the test that set it: the box goes on, for those that come after."""
        try:
            yield
        except Exception as problem:
            self.failure = self.failure or problem

    def _push(self, delay: float, toward: str, frame: bytes) -> None:
        with self._lock:
            heapq.heappush(self._queue, (time.monotonic() + delay, next(self._order), toward, frame))

    def _send_due(self) -> None:
        now = time.monotonic()
        while True:
            with self._lock:
                if not self._queue or self._queue[0][0] > now:
                    return
                _, _, toward, frame = heapq.heappop(self._queue)
            try:
                self._sockets[toward].send(frame)
                self.forwarded[toward] += 1
            except OSError:
                self.refused += 1


@dataclass(frozen=True)
class Interrupted(Pair):
    """Hosts a and b with a middlebox on the link between them."""

    box: Middlebox


def insert(
    lab: Lab, one: Host, other: Host, *, mtu: int = 1500, name: str = "box", offloads: Offloads | None = None
) -> Host:
    """A host for a `Middlebox`, linked to `eth0` of two hosts. Checksums are finished before its links.

    `mtu` is that of both links, in bytes: a longer frame that a behaviour makes is refused by the link.
    """
    box = lab.host(name)
    box.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
    plain = offloads or Offloads(gso=True, gro=True, tx=False)
    for host, side in ((one, TO_A), (other, TO_B)):
        lab.link(host, "eth0", box, side, mtu=mtu, one_offloads=plain, other_offloads=Offloads(gro=False))
    return box


@contextlib.contextmanager
def interrupted_pair(
    behaviour: Behaviour = passing, *, mtu: int = 1500, gso: bool = True, gro: bool = True, ipv6: bool = True
) -> Iterator[Interrupted]:
    """Hosts a (10.66.0.1, fd66::1) and b (10.66.0.2, fd66::2) with a running middlebox between them."""
    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        box = insert(lab, a, b, mtu=mtu, offloads=Offloads(gso=gso, gro=gro, tx=False))
        number_hosts(lab, [a, b], ipv6)
        with Middlebox(box, behaviour) as running:
            yield Interrupted(lab, a, b, running)
