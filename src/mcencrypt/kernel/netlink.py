"""Plain netlink sockets for the daemon's loop: one request and its answers, or multicast events.

pyroute2 is not used here on purpose: its 0.9 runs an asyncio loop inside every synchronous call, which fails
inside a running loop, and costs some 0.4 ms per request, 24 MB of memory and 0.4 s at start.
The real-kernel tests check these messages against pyroute2's classes.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

NETLINK_ROUTE = 0
NETLINK_SOCK_DIAG = 4
NETLINK_NETFILTER = 12

NLM_F_REQUEST = 1
NLM_F_ACK = 4
NLM_F_DUMP = 0x300

_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_NLM_F_DUMP_INTR = 0x10
_SOL_NETLINK = 270
_ADD_MEMBERSHIP = 1

_HEADER = struct.Struct("=IHHII")
_ATTRIBUTE = struct.Struct("=HH")
_STATUS = struct.Struct("=i")
_TIMEVAL = struct.Struct("@ll")
_TIMEOUT = 1
_RECEIVE = 1 << 16
_DUMP_ATTEMPTS = 5
_ATTRIBUTE_TYPE = 0x3FFF


class Message(NamedTuple):
    """One message of a batch: its type, flags and body."""

    kind: int
    flags: int
    body: bytes


class Netlink:
    """A netlink socket that asks one question at a time and waits for the answer, at most a second."""

    def __init__(self, protocol: int) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol)
        self._socket.bind((0, 0))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _TIMEVAL.pack(_TIMEOUT, 0))
        self._sequence = 0

    @property
    def port(self) -> int:
        """The number by which the kernel knows this socket (nl_pid of netlink(7))."""
        number: int = self._socket.getsockname()[0]
        return number

    def request(self, kind: int, flags: int, body: bytes) -> bytes:
        """Ask for one message and return its body (b"" for a mere acknowledgement).

        Raises OSError with the errno the kernel answered, or EAGAIN/TimeoutError when it did not answer.
        """
        self._send(kind, flags, body)
        for _, answer in self._answers():
            return answer
        return b""

    def dump(self, kind: int, body: bytes, whole: bool = False) -> list[bytes]:
        """Ask for a table and return the bodies of its messages. Raises OSError.

        A dump that was disturbed by a change (NLM_F_DUMP_INTR) is asked for again; one that is disturbed each time
        is returned with what is missing or twice in it, unless it must be `whole`: then EAGAIN is raised.
        """
        for _ in range(_DUMP_ATTEMPTS):
            self._send(kind, NLM_F_DUMP, body)
            disturbed = False
            bodies = []
            for flags, answer in self._answers(dump=True):
                disturbed |= bool(flags & _NLM_F_DUMP_INTR)
                bodies.append(answer)
            if not disturbed:
                return bodies
        if whole:
            raise OSError(errno.EAGAIN, "it changes again and again")
        return bodies

    def batch(self, parts: Sequence[Message]) -> None:
        """Send messages as one datagram, and wait until each that asks for an acknowledgement (NLM_F_ACK) has one.

        Raises OSError with the first errno that the kernel answered, whichever message it is about.
        """
        wanted, data = set(), b""
        for part in parts:
            data += self._pack(*part)
            if part.flags & NLM_F_ACK:
                wanted.add(self._sequence)
        first = (self._sequence - len(parts)) & 0xFFFFFFFF
        self._socket.send(data)
        while wanted:
            for kind, _, sequence, body in messages(self._socket.recv(_RECEIVE)):
                if kind != _NLMSG_ERROR or not 0 < (sequence - first) & 0xFFFFFFFF <= len(parts):
                    continue
                status = _STATUS.unpack_from(body)[0]
                if status < 0:
                    raise OSError(-status, os.strerror(-status))
                wanted.discard(sequence)

    def _send(self, kind: int, flags: int, body: bytes) -> None:
        self._socket.send(self._pack(kind, flags, body))

    def _pack(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence = (self._sequence + 1) & 0xFFFFFFFF
        header = _HEADER.pack(_HEADER.size + len(body), kind, flags | NLM_F_REQUEST, self._sequence, 0)
        return header + body + bytes(-len(body) % 4)

    def _answers(self, dump: bool = False) -> Iterator[tuple[int, bytes]]:
        """(flags, body) of each answer to the last request, until it is complete."""
        while True:
            data = self._socket.recv(_RECEIVE)
            for kind, flags, sequence, body in messages(data):
                if sequence != self._sequence:
                    continue
                if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                    status = _STATUS.unpack_from(body)[0] if len(body) >= _STATUS.size else 0
                    if status < 0:
                        raise OSError(-status, os.strerror(-status))
                    return
                yield flags, body
                if not dump:
                    return

    def close(self) -> None:
        self._socket.close()


class Listener:
    """Multicast events of one netlink family, for a loop that needs to know only that something changed."""

    def __init__(self, protocol: int, groups: Iterable[int]) -> None:
        flags = socket.SOCK_RAW | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK
        self._socket = socket.socket(socket.AF_NETLINK, flags, protocol)
        self._socket.bind((0, 0))
        for group in groups:
            self._socket.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, group)

    def fileno(self) -> int:
        return self._socket.fileno()

    def handle_events(self) -> bool:
        """Read what has arrived, without blocking; True if anything changed since the last call.

        An overrun (ENOBUFS) is a change whose message was lost.
        """
        changed = False
        while True:
            try:
                self._socket.recv(_RECEIVE)
            except BlockingIOError:
                return changed
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
            changed = True

    def close(self) -> None:
        self._socket.close()


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence, body) of each netlink message in one datagram."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        if length < _HEADER.size or at + length > len(data):
            return
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes, at: int = 0) -> Iterator[tuple[int, bytes]]:
    """(type, value) of each attribute from offset `at` on; flag bits of the type are masked off."""
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        if length < _ATTRIBUTE.size or at + length > len(data):
            return
        yield kind & _ATTRIBUTE_TYPE, data[at + _ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3
