"""The kernel's end of a netfilter queue, played by a socket pair: messages in, verdicts out."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, NamedTuple

from mcencrypt.kernel.netlink import attributes

if TYPE_CHECKING:
    from mcencrypt.kernel import queue

_PACKET_HEADER_AT = 20
_NLMSG_ERROR = 2
_VERDICT = 0x0301  # NFNL_SUBSYS_QUEUE, NFQNL_MSG_VERDICT
_VERDICT_HEADER, _PAYLOAD = 2, 10
#: The sequence number of the one request that `Queue` makes.
CONFIGURATION = 0x6D63


def acknowledgement(code: int = 0, sequence: int = CONFIGURATION) -> bytes:
    """The kernel's answer to a request: 0, or an errno."""
    return struct.pack("=IHHIIiIHHII", 36, _NLMSG_ERROR, 0, sequence, 0, -code, 16, 0, 0, sequence, 0)


def packet_id(message: bytes) -> int:
    """The id of the packet in a message (NFQA_PACKET_HDR, the first attribute)."""
    return int(struct.unpack_from("!I", message, _PACKET_HEADER_AT + 4)[0])


class Given(NamedTuple):
    """A verdict as the kernel gets it: the packet's id, "accept" or "drop", and what goes in its place."""

    id: int
    verdict: str
    replacement: bytes | None

    @classmethod
    def read(cls, message: bytes) -> Given:
        """An NFQNL_MSG_VERDICT, which must be as the kernel wants it (linux/netfilter/nfnetlink_queue.h)."""
        length, kind, flags = struct.unpack_from("=IHH", message)
        assert (length, kind, flags) == (len(message), _VERDICT, 1), "a verdict on one packet"
        found = dict(attributes(message, _PACKET_HEADER_AT))
        verdict, packet = struct.unpack("!II", found[_VERDICT_HEADER])
        return cls(packet, ("drop", "accept")[verdict], found.get(_PAYLOAD))


class FakeBinding:
    """In the place of a `NetfilterQueue`.  `answers` wait when the queue is configured."""

    def __init__(self, answers: Iterable[bytes] = (acknowledgement(),)) -> None:
        self.kernel, self._ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.kernel.setblocking(False)
        for end in (self.kernel, self._ours):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
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
        self.bound = queue_num

    def get_fd(self) -> int:
        return self._ours.fileno()

    def verdicts(self) -> list[Given]:
        """Those given since this was asked before."""
        found = []
        with contextlib.suppress(BlockingIOError):
            while True:
                found.append(Given.read(self.kernel.recv(1 << 18)))
        return found

    def unbind(self) -> None:
        self.bound = None

    def close(self) -> None:
        """Both ends of the pair."""
        self.kernel.close()
        self._ours.close()


if TYPE_CHECKING:
    _binding: type[queue.Binding] = FakeBinding
