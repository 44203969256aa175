"""The netfilter queue: packets come in as GSO batches, and each gets its verdict here and nowhere else.

NetfilterQueue binds the queue and sends verdicts.  What it cannot do is done on its own netlink socket: asking for
unsegmented packets (NFQA_CFG_F_GSO) with a copy range that holds them, and reading NFQA_SKB_INFO.  It takes its
messages from an object with `recv`, so the packet is read into a buffer of ours, which is kept, and NetfilterQueue
is handed the message without the payload: an id is all that it needs for a verdict.
"""

from __future__ import annotations

import errno
import functools
import logging
import os
import socket
import time
from collections.abc import Callable
from struct import Struct
from typing import Any, Final, NamedTuple, Protocol

from netfilterqueue import COPY_PACKET, NetfilterQueue

from mcencrypt.core.packet import VERDICT_LIMIT
from mcencrypt.core.verdict import ACCEPT, DROP, Verdict
from mcencrypt.errors import OperatorError

#: Decides about one packet: the packet (valid until it returns), NFQA_SKB_INFO, whether it leaves this host, and now.
Decide = Callable[[memoryview, int, bool, float], Verdict]

log = logging.getLogger(__name__)

_SUBSYSTEM_CONFIG: Final = 3 << 8 | 2  # NFNL_SUBSYS_QUEUE, NFQNL_MSG_CONFIG
_REQUEST_ACK: Final = 1 | 4
_NLMSG_ERROR: Final = 2
_CFG_PARAMS, _CFG_MAXLEN, _CFG_MASK, _CFG_FLAGS = 2, 3, 4, 5
_F_GSO: Final = 1 << 2
_IFINDEX_INDEV, _IFINDEX_OUTDEV = 5, 6
_PAYLOAD: Final = 10
_SKB_INFO: Final = 14
_FIRST_ATTRIBUTE: Final = 20  # behind struct nlmsghdr and struct nfgenmsg: NFQA_PACKET_HDR
_HOOK_AT: Final = _FIRST_ATTRIBUTE + 4 + 6  # in struct nfqnl_msg_packet_hdr
_LOCAL_OUT: Final = 3  # NF_INET_LOCAL_OUT

#: Packets that may wait for us in the kernel, and bytes of its socket buffer.
MAX_WAITING: Final = 4096
SOCKET_BUFFER: Final = 32 << 20
#: Packets handled in one go before timers and the control socket get their turn.
BURST: Final = 64
_BUFFER: Final = 1 << 17

_attribute = Struct("=HH").unpack_from
_big_u32 = Struct("!I").unpack_from
_native_u32 = Struct("=I").pack_into
_native_i32 = Struct("=i").unpack_from
_message_header = Struct("=IHHII")


class Waiting(Protocol):
    """What is used of a `netfilterqueue.Packet`: the verdict on a packet that waits in the kernel."""

    def accept(self) -> None: ...

    def drop(self) -> None: ...

    def set_payload(self, payload: bytes) -> None: ...


class Binding(Protocol):
    """What is used of a `netfilterqueue.NetfilterQueue`."""

    def bind(
        self, queue_num: int, user_callback: Callable[[Any], None], *, max_len: int, mode: int, sock_len: int
    ) -> None: ...

    def get_fd(self) -> int: ...

    def run_socket(self, s: Any) -> None:
        """Call `s.recv(size)` until that would block, and the callback for each message."""

    def unbind(self) -> None: ...


class Queue:
    """One bound queue in the network namespace of the calling process."""

    def __init__(self, number: int, decide: Decide, binding: Binding | None = None) -> None:
        """`binding`: what stands in for the kernel in tests.  Raises OperatorError if the queue cannot be had."""
        self.number = number
        self._decide = decide
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._packet = self._view[0:0]
        self._skb_info = 0
        #: Whether the packet being decided leaves this host.
        self.outgoing = False
        self._left = 0
        #: Of the last message of each hook.
        self._layouts: dict[int, _Layout] = {}
        self._pending: list[bytes] = []
        #: Times that the kernel said it had dropped packets because our socket was full.
        self.enobufs = 0
        #: Verdicts that could not be given as decided: the packet was dropped.
        self.bad_verdicts = 0
        self._logged = False
        try:
            self._queue: Binding = binding or NetfilterQueue()
            self._queue.bind(number, self._handle, max_len=MAX_WAITING, mode=COPY_PACKET, sock_len=SOCKET_BUFFER)
        except OSError as problem:
            raise OperatorError(
                f"cannot bind netfilter queue {number}: {problem}; run as root (CAP_NET_ADMIN), and see whether "
                "another program uses it (set queue_number, or stop the other daemon)"
            ) from None
        self._socket = socket.socket(fileno=os.dup(self._queue.get_fd()))
        self._socket.setblocking(False)
        self._configure()

    def fileno(self) -> int:
        return self._socket.fileno()

    def device(self) -> int:
        """Index of the device that the packet being decided came by, or, if `outgoing`, leaves by; 0 for none."""
        layout = self._layouts.get(self._buffer[_HOOK_AT])
        at, end = _FIRST_ATTRIBUTE, layout.payload_at if layout else 0
        while at < end:
            size, kind = _attribute(self._buffer, at)
            if kind in (_IFINDEX_INDEV, _IFINDEX_OUTDEV):
                device: int = _big_u32(self._buffer, at + 4)[0]
                return device
            at += max(size + 3 & ~3, 4)
        return 0

    def close(self) -> None:
        """Unbind: what waits in the kernel is dropped, and so is all that the rules send here from now on."""
        self._queue.unbind()
        self._socket.close()

    def ready(self) -> None:
        """Handle packets until none is left, or it is others' turn."""
        self._left = BURST
        self._queue.run_socket(self)

    def recv(self, _size: int) -> bytes:
        """For NetfilterQueue.run_socket: the next message, its payload left in our buffer."""
        if self._pending:
            return self._pending.pop()
        if not self._left:
            raise BlockingIOError(errno.EAGAIN, "others' turn")
        self._left -= 1
        try:
            length = self._socket.recv_into(self._buffer)
        except OSError as problem:
            if problem.errno == errno.ENOBUFS:
                self.enobufs += 1
            raise
        return self._take(length)

    def _take(self, length: int) -> bytes:
        """Find packet, hook and NFQA_SKB_INFO in our buffer; returns the message without the packet."""
        buffer = self._buffer
        hook = buffer[_HOOK_AT]
        layout = self._layouts.get(hook)
        # The attributes mostly stand where they stood in the message before.
        if (
            layout is None
            or layout.headers(buffer) != layout.expected
            or _attribute(buffer, layout.payload_at) != (length - layout.payload_at, _PAYLOAD)
        ):
            layout = self._layouts[hook] = _find(buffer, length)
        _, _, payload_at, info_at = layout
        self.outgoing = hook == _LOCAL_OUT
        self._skb_info = _big_u32(buffer, info_at + 4)[0] if info_at else 0
        self._packet = self._view[payload_at + 4 : length] if payload_at else self._view[0:0]
        end = payload_at or length
        _native_u32(buffer, 0, end)
        return bytes(self._view[:end])

    def _handle(self, packet: Waiting) -> None:
        """NetfilterQueue's callback: whatever happens, the packet gets a verdict."""
        verdict: Verdict = DROP
        try:
            if self._packet:
                verdict = self._decide(self._packet, self._skb_info, self.outgoing, time.monotonic())
        except Exception:
            self.bad_verdicts += 1
            if not self._logged:
                self._logged = True
                log.exception("internal error; the packet was dropped, and the next such error is only counted")
        self._give(packet, verdict)

    def _give(self, packet: Waiting, verdict: Verdict) -> None:
        """The one place that gives verdicts.

        A replacement longer than VERDICT_LIMIT would wrap nla_len: the kernel would ignore it and
        let the original, in plaintext, pass.  An empty one would do the same.
        """
        if verdict is ACCEPT:
            packet.accept()
        elif isinstance(verdict, bytes) and 0 < len(verdict) <= VERDICT_LIMIT:
            packet.set_payload(verdict)
            packet.accept()
        else:
            if verdict is not DROP:
                self.bad_verdicts += 1
            packet.drop()

    def _configure(self) -> None:
        """Unsegmented packets, copied up to VERDICT_LIMIT bytes; checked by the kernel's acknowledgement."""
        parameters = VERDICT_LIMIT.to_bytes(4, "big") + bytes((COPY_PACKET,))
        body = b"".join(
            (
                b"\0\0" + self.number.to_bytes(2, "big"),
                _encode(_CFG_PARAMS, parameters),
                _encode(_CFG_FLAGS, _F_GSO.to_bytes(4, "big")),
                _encode(_CFG_MASK, _F_GSO.to_bytes(4, "big")),
            )
        )
        sequence = 0x6D63
        self._socket.send(_message_header.pack(16 + len(body), _SUBSYSTEM_CONFIG, _REQUEST_ACK, sequence, 0) + body)
        while True:
            try:
                message = self._socket.recv(_BUFFER)
            except BlockingIOError:  # the kernel answers before send returns (netlink_unicast_kernel)
                break
            _, kind, _, number, _ = _message_header.unpack_from(message)
            if kind == _NLMSG_ERROR and number == sequence:
                code = -_native_i32(message, 16)[0]
                if code:
                    raise OperatorError(
                        f"the kernel refused GSO packets on netfilter queue {self.number}: {os.strerror(code)}; "
                        "mcencrypt needs Linux 3.10 or later with CONFIG_NETFILTER_NETLINK_QUEUE"
                    )
                return
            if kind != _NLMSG_ERROR:
                self._pending.append(message)  # a packet that was copied short: it gets its verdict, a drop
        raise OperatorError(f"the kernel did not answer the configuration of netfilter queue {self.number}")


class _Layout(NamedTuple):
    """Where the attributes of a message stand: their headers up to NFQA_PAYLOAD, and two offsets, 0 for none."""

    headers: Callable[[bytearray], tuple[int, ...]]
    expected: tuple[int, ...]
    payload_at: int
    info_at: int


def _find(buffer: bytearray, length: int) -> _Layout:
    """Walk the attributes of a message, of which NFQA_PAYLOAD is always the last (nfqnl_build_packet_message)."""
    at, info_at, places = _FIRST_ATTRIBUTE, 0, []
    while at + 4 <= length:
        size, kind = _attribute(buffer, at)
        if kind == _PAYLOAD:
            break
        if (size, kind) == (8, _SKB_INFO):
            info_at = at
        places.append(at)
        at += max(size + 3 & ~3, 4)
    else:
        at = 0
    headers = _headers(tuple(places))
    return _Layout(headers, headers(buffer), at, info_at)


@functools.lru_cache(maxsize=64)
def _headers(places: tuple[int, ...]) -> Callable[[bytearray], tuple[int, ...]]:
    """Reads the headers of the attributes that stand at these offsets."""
    ends = (0, *(at + 4 for at in places))
    return Struct("=" + "".join(f"{at - end}xHH" for at, end in zip(places, ends, strict=False))).unpack_from


def _encode(kind: int, value: bytes) -> bytes:
    """One netlink attribute, padded."""
    return Struct("=HH").pack(4 + len(value), kind) + value + bytes(-len(value) % 4)


#: Of the calling thread's network namespace, which need not be that of the process' start.
PROC_QUEUES: Final = "/proc/thread-self/net/netfilter/nfnetlink_queue"


def statistics(number: int, path: str = PROC_QUEUES) -> tuple[int, int, int]:
    """(packets waiting, dropped because the queue was full, dropped because our socket was full).

    Columns 3, 6 and 7 of /proc/net/netfilter/nfnetlink_queue (seq_show in nfnetlink_queue.c); zeros if unreadable.
    """
    columns = _columns(number, path)
    return columns[2], columns[5], columns[6]


def progress(number: int, path: str = PROC_QUEUES) -> tuple[int, int, int]:
    """(packets waiting, verdicts given, packets that came); zeros if unreadable.

    Column 8 is the id of the last packet, counted from 1 when the queue was bound. What our socket had no room for has
    an id as well, and never waits (__nfqnl_enqueue_packet).
    """
    columns = _columns(number, path)
    waiting, dropped_user, arrived = columns[2], columns[6], columns[7]
    return waiting, arrived - waiting - dropped_user, arrived


def _columns(number: int, path: str) -> list[int]:
    try:
        with open(path) as lines:
            for line in lines:
                columns = [int(word) for word in line.split()]
                if columns[0] == number and len(columns) >= 8:
                    return columns
    except (OSError, ValueError, IndexError):
        pass
    return [0] * 8
