"""The netfilter queue's messages: one received into a buffer that is kept, one verdict sent.

This file is the interpreted twin of nfq.pyx, which has the same functions with the same meaning in C; `queue.pxd` takes
that one when `queue` is compiled. Messages are those of linux/netfilter/nfnetlink_queue.h.
"""

from __future__ import annotations

import errno
import select
import socket
import time
from struct import Struct
from time import monotonic as monotonic
from typing import Final

from mcencrypt.core.prim import Reply

BUFFER: Final = 1 << 17
_PACKET: Final = 3 << 8  # NFNL_SUBSYS_QUEUE, NFQNL_MSG_PACKET
_VERDICT: Final = 3 << 8 | 1
_REQUEST: Final = 1
_VERDICT_HEADER: Final = 2
_IFINDEX_INDEV, _IFINDEX_OUTDEV = 5, 6
_PAYLOAD: Final = 10
_SKB_INFO: Final = 14
_FIRST_ATTRIBUTE: Final = 20  # behind struct nlmsghdr and struct nfgenmsg: NFQA_PACKET_HDR
_ID_AT: Final = _FIRST_ATTRIBUTE + 4
_HOOK_AT: Final = _FIRST_ATTRIBUTE + 4 + 6  # in struct nfqnl_msg_packet_hdr
_LOCAL_OUT: Final = 3  # NF_INET_LOCAL_OUT
_DROP, _ACCEPT = 0, 1

_attribute = Struct("=HH")
_big_u32 = Struct("!I").unpack_from
_native_u32 = Struct("=I").unpack_from
_head = Struct("=IHHIIBB")


class Message:
    """A packet as the kernel handed it over: valid until the next `receive`.

    `packet` is the packet, `length` its bytes (0: it was not copied), `skb_info` NFQA_SKB_INFO, `outgoing` whether it
    leaves this host, `device` the index of the device that it came by, or leaves by; 0 for none.
    """

    __slots__ = ("_buffer", "_view", "channel", "device", "id", "length", "outgoing", "packet", "skb_info")

    def __init__(self, channel: socket.socket) -> None:
        self.channel = channel
        self._buffer = bytearray(BUFFER)
        self._view = memoryview(self._buffer)
        self.packet = self._view[0:0]
        self.id = b""
        self.length = self.skb_info = self.device = 0
        self.outgoing = False

    def view(self) -> memoryview:
        """The packet."""
        return self.packet


def receive(message: Message) -> int:
    """1: a packet was received; 0: none waits; -1: the kernel dropped some, our socket was full; 2: another message.

    Raises OSError if the socket cannot be read.
    """
    buffer = message._buffer
    try:
        length = message.channel.recv_into(buffer, 0, socket.MSG_DONTWAIT)
    except (BlockingIOError, InterruptedError):
        return 0
    except OSError as problem:
        if problem.errno == errno.ENOBUFS:
            return -1
        raise
    if length <= _HOOK_AT or int.from_bytes(buffer[4:6], "little") != _PACKET or _native_u32(buffer)[0] > length:
        return 2
    message.id = bytes(buffer[_ID_AT : _ID_AT + 4])
    message.outgoing = buffer[_HOOK_AT] == _LOCAL_OUT
    message.skb_info = message.length = message.device = 0
    message.packet = message._view[0:0]
    at = _FIRST_ATTRIBUTE
    while at + 4 <= length:
        size, kind = _attribute.unpack_from(buffer, at)
        if size < 4 or at + size > length:
            break
        if kind == _PAYLOAD:
            message.packet = message._view[at + 4 : at + size]
            message.length = size - 4
        elif kind == _SKB_INFO and size == 8:
            message.skb_info = _big_u32(buffer, at + 4)[0]
        elif kind in (_IFINDEX_INDEV, _IFINDEX_OUTDEV) and size == 8:
            message.device = _big_u32(buffer, at + 4)[0]
        at += size + 3 & ~3
    return 1


def accept(queue: int, message: Message) -> bool:
    """Let the packet pass as it is. Whether the kernel took the verdict."""
    return _send(queue, message, _ACCEPT, ())


def drop(queue: int, message: Message) -> bool:
    """Drop the packet. Whether the kernel took the verdict."""
    return _send(queue, message, _DROP, ())


def replace(queue: int, message: Message, packet: bytes) -> bool:
    """Let `packet` pass in its place. Whether the kernel took the verdict; False if it is too long, or empty."""
    return _send(queue, message, _ACCEPT, (packet,))


def replace_by(queue: int, message: Message, reply: Reply) -> bool:
    """`replace` for a reply in two pieces."""
    body = reply.room if reply.blob is None else reply.blob
    parts = (memoryview(reply.head)[: reply.head_length], memoryview(body)[: reply.body_length])
    return _send(queue, message, _ACCEPT, parts)


def _send(queue: int, message: Message, verdict: int, parts: tuple[bytes | memoryview, ...]) -> bool:
    """The one function that gives verdicts.

    A replacement longer than 65531 bytes would wrap nla_len: the kernel would ignore it and let the original, in
    plaintext, pass. An empty one would do the same.
    """
    length = sum(map(len, parts))
    payload: tuple[bytes | memoryview, ...] = ()
    if parts:
        if not 0 < length <= 65531:
            return False
        payload = (_attribute.pack(4 + length, _PAYLOAD), *parts, bytes(-length % 4))
    body = _attribute.pack(12, _VERDICT_HEADER) + verdict.to_bytes(4, "big") + message.id
    size = 20 + len(body) + sum(map(len, payload))
    head = _head.pack(size, _VERDICT, _REQUEST, 0, 0, 0, 0) + queue.to_bytes(2, "big")
    try:
        return message.channel.sendmsg((head, body, *payload)) == size
    except OSError:
        return False


def wait(message: Message, other: int, seconds: float) -> int:
    """Wait until a message (1) or the descriptor `other` (2) is there, or both (3).

    0 after `seconds` (negative: for ever), or when a signal came.
    """
    waiting = select.poll()
    own = message.channel.fileno()
    waiting.register(own, select.POLLIN)
    if other >= 0:
        waiting.register(other, select.POLLIN)
    ready = {fd for fd, _ in waiting.poll(None if seconds < 0 else int(seconds * 1000) + (seconds > 0))}
    return (own in ready) + 2 * (other in ready)


def pause(seconds: float) -> None:
    """Sleep for less than a second, or until a signal comes."""
    time.sleep(seconds)
