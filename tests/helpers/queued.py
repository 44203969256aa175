"""The kernel's end of a netfilter queue, played by a socket pair: messages in, verdicts out."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mcencrypt.kernel import queue

_PACKET_HEADER_AT = 20
_NLMSG_ERROR = 2
#: The sequence number of the one request that `Queue` makes.
CONFIGURATION = 0x6D63


def acknowledgement(code: int = 0, sequence: int = CONFIGURATION) -> bytes:
    """The kernel's answer to a request: 0, or an errno."""
    return struct.pack("=IHHIIiIHHII", 36, _NLMSG_ERROR, 0, sequence, 0, -code, 16, 0, 0, sequence, 0)


def packet_id(message: bytes) -> int:
    """The id of the packet in a message (NFQA_PACKET_HDR, the first attribute)."""
    return int(struct.unpack_from("!I", message, _PACKET_HEADER_AT + 4)[0])


class FakePacket:
    """A packet that waits for its verdict, and what it got."""

    def __init__(self, message: bytes) -> None:
        self.message = message
        self.verdict: str | None = None
        self.replacement: bytes | None = None

    def accept(self) -> None:
        self._give("accept")

    def drop(self) -> None:
        self._give("drop")

    def set_payload(self, payload: bytes) -> None:
        self.replacement = payload

    def _give(self, verdict: str) -> None:
        assert self.verdict is None, "a packet gets one verdict"
        self.verdict = verdict


class FakeBinding:
    """In the place of a `NetfilterQueue`.  `answers` wait when the queue is configured."""

    def __init__(self, answers: Iterable[bytes] = (acknowledgement(),)) -> None:
        self.kernel, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.packets: list[FakePacket] = []
        self.bound: int | None = None
        #: What `bind` raises.
        self.problem: OSError | None = None
        for answer in answers:
            self.kernel.send(answer)

    def bind(
        self, queue_num: int, user_callback: Callable[[Any], None], *, max_len: int, mode: int, sock_len: int
    ) -> None:
        if self.problem:
            raise self.problem
        self.bound, self._callback = queue_num, user_callback

    def get_fd(self) -> int:
        return self._ours.fileno()

    def run_socket(self, s: Any) -> None:
        """As NetfilterQueue.run_socket does it."""
        while True:
            try:
                message = s.recv(4096)
            except OSError as problem:
                if problem.errno == errno.ENOBUFS:
                    continue
                if problem.errno == errno.EAGAIN:
                    return
                raise
            self.packets.append(FakePacket(message))
            self._callback(self.packets[-1])

    def unbind(self) -> None:
        self.bound = None

    def close(self) -> None:
        """Both ends of the pair."""
        self.kernel.close()
        self._ours.close()


if TYPE_CHECKING:
    _binding: type[queue.Binding] = FakeBinding
    _packet: type[queue.Waiting] = FakePacket
