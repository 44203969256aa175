"""The few operations on bytes under `fast`: read and write numbers, seal, open, sum.

This file is the interpreted twin of prim.pyx, which has the same functions with the same meaning in C; `fast.pxd` takes
that one when `fast` is compiled. A packet is whatever holds bytes here and a pointer there, so nothing in `fast` may
slice one.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .checksum import Buffer as Buffer
from .checksum import ipv4_header_checksum, tcp_checksum_is_right, write_tcp_checksum

HEADER: Final = 6
OVERHEAD: Final = 22
FINAL: Final = 0x8000
#: Bytes of headers that a reply has room for (IPv4 or IPv6 and TCP, options included), and of payload.
HEAD_ROOM: Final = 128
BODY_ROOM: Final = 1 << 16
#: Bytes that the largest record has on the wire: room for one that a packet begins and the next one ends.
LEAD_ROOM: Final = 0x7FFF + OVERHEAD
#: Batches of records of one size that one packet may hold.
MAX_BATCHES: Final = 32

_u16 = Struct("!H").unpack_from
_u32 = Struct("!I").unpack_from
put16 = Struct("!H").pack_into
put32 = Struct("!I").pack_into
_header = Struct("!HI")
_slot = Struct("=QQ").pack_into
_nonce = Struct("!IQ").pack


def u16(packet: Buffer, at: int) -> int:
    """The 16-bit number at `at`, big-endian."""
    return int(_u16(packet, at)[0])


def u32(packet: Buffer, at: int) -> int:
    """The 32-bit number at `at`, big-endian."""
    return int(_u32(packet, at)[0])


class Cipher:
    """AES-256-GCM under one key."""

    __slots__ = ("aead",)

    def __init__(self, key: bytes) -> None:
        self.aead = AESGCM(key)

    def seal(self, wire: int, data: Buffer, header: bytes) -> bytes:
        """Ciphertext and tag of the record at wire offset `wire`, whose header is 6 bytes."""
        return self.aead.encrypt(_nonce(0, wire), data, header)

    def open(self, wire: int, sealed: Buffer, header: Buffer) -> bytes | None:
        """What `seal` has sealed; None if it is not authentic."""
        try:
            return self.aead.decrypt(_nonce(0, wire), sealed, header)
        except InvalidTag:
            return None


class Reply:
    """A packet that leaves: headers, and a payload that stands elsewhere.

    `head_length` and `body_length` are in bytes. The rest tells what `open_records` found: in each batch of records of
    one size (the last of them may be shorter) the `sizes` of a record and all `lengths` together, in plaintext bytes;
    and how many bytes of the packet these were.
    """

    __slots__ = (
        "batches", "blob", "body_length", "consumed", "head", "head_length", "lead", "lead_length", "lengths", "room",
        "seen", "sizes", "tcp_at",
    )  # fmt: skip

    def __init__(self) -> None:
        self.head = bytearray(HEAD_ROOM)
        self.room = bytearray(BODY_ROOM)
        self.head_length = self.body_length = self.batches = self.consumed = 0
        self.sizes, self.lengths = [0] * MAX_BATCHES, [0] * MAX_BATCHES
        #: The beginning of a record that the packet goes on with.
        self.lead, self.lead_length = bytearray(LEAD_ROOM), 0
        #: Where the TCP header begins, and what the packet had there from acknowledgement to window.
        self.tcp_at, self.seen = 0, b""
        #: The payload if it is kept as an object of its own (what was sealed); else it is in `room`.
        self.blob: bytes | None = None

    def whole(self) -> bytes:
        """The packet in one piece, for those who cannot send two."""
        body = self.room if self.blob is None else self.blob
        return bytes(self.head[: self.head_length]) + bytes(body[: self.body_length])


class Region:
    """Writable memory of another object, such as a mapped file, which stays as long as this."""

    __slots__ = ("view",)

    def __init__(self, target: bytearray | memoryview) -> None:
        self.view = memoryview(target)


class Slot:
    """Two numbers of 64 bits, in the machine's byte order, at one place of a region."""

    __slots__ = ("_at", "_region")

    def __init__(self, region: Region, at: int) -> None:
        """`at`: bytes from the region's beginning. Raises ValueError if that is outside."""
        if at < 0 or at + 16 > len(region.view):
            raise ValueError("a slot is inside its region")
        self._region, self._at = region, at

    def write(self, first: int, second: int) -> None:
        """Write both."""
        _slot(self._region.view, self._at, first, second)


def key_of(packet: Buffer, ipv6: bool) -> bytes:
    """Addresses and ports of a TCP packet without IP options, in the order of the packet."""
    return bytes(packet[8:44] if ipv6 else packet[12:24])


def copy_head(reply: Reply, packet: Buffer, length: int) -> None:
    """Begin a reply with the first `length` bytes of a packet, at most `HEAD_ROOM`; it has no payload yet."""
    reply.head[:length] = packet[:length]
    reply.head_length, reply.body_length, reply.blob = length, 0, None


def take_blob(reply: Reply, blob: bytes) -> None:
    """Let what was sealed be the reply's payload."""
    reply.blob, reply.body_length = blob, len(blob)


def take_lead(reply: Reply, start: int) -> None:
    """Let what the reply's lead has from `start` on be its payload."""
    take_blob(reply, bytes(reply.lead[start : reply.lead_length]))


def seal(cipher: Cipher, wire: int, plain: int, packet: Buffer, at: int, length: int, size: int) -> bytes:
    """`length` bytes at `at`, from plain offset `plain` on, as records of `size` bytes from wire offset `wire` on.

    All of them must be of one epoch, the cipher's.
    """
    pieces: list[bytes] = []
    encrypt = cipher.aead.encrypt
    for start in range(at, at + length, size):
        count = min(size, at + length - start)
        header = _header.pack(count, plain & 0xFFFFFFFF)
        pieces += header, encrypt(_nonce(0, wire), bytes(packet[start : start + count]), header)
        wire += count + OVERHEAD
        plain += count
    return b"".join(pieces)


def no_lead(reply: Reply) -> None:
    """The packet to come does not go on with a record of another."""
    reply.lead_length = 0


def add_lead(reply: Reply, page: bytearray, at: int, length: int) -> bool:
    """Add `length` bytes at `at` to the record that the packet to come goes on with; False if no record is so long."""
    end = reply.lead_length + length
    if end > LEAD_ROOM:
        return False
    reply.lead[reply.lead_length : end] = page[at : at + length]
    reply.lead_length = end
    return True


def room(length: int) -> bytearray:
    """`length` bytes to write to, whatever stands there."""
    return bytearray(length)


def digits(number: int) -> int:
    """How many binary digits a number has that is not negative."""
    return number.bit_length()


def copy_into(page: bytearray, at: int, packet: Buffer, start: int, length: int) -> None:
    """`length` bytes at `start` of a packet become those at `at` of a page."""
    page[at : at + length] = packet[start : start + length]


def open_records(
    cipher: Cipher, wire: int, plain: int, packet: Buffer, at: int, length: int, reply: Reply, limit: int
) -> int:
    """Open the records at `at`, `length` bytes in all, behind the payload of the reply: returns the plaintext bytes.

    The first one begins with the reply's lead; `wire` and `plain` are where that begins. What is left at the end is no
    whole record, and not looked at. -1, and the payload is what it was, unless all others are authentic, none of them
    FINAL or empty, in one stream, and the payload not longer than `limit` with them.
    """
    lead, end, opened, consumed, room = reply.lead_length, at + length, 0, 0, reply.body_length
    sizes, lengths, batch, last = reply.sizes, reply.lengths, -1, True
    reply.batches = reply.consumed = 0
    reply.blob = None
    limit = min(limit, BODY_ROOM) - room
    while lead + end - at >= OVERHEAD:
        header = bytes(reply.lead[:lead][:HEADER]) + bytes(packet[at : at + max(0, HEADER - lead)])
        count, offset = _header.unpack(header)
        if count >= FINAL or not count:
            return -1
        stop = at + OVERHEAD + count - lead
        if stop > end:
            break
        if stop <= at or opened + count > limit or offset != plain & 0xFFFFFFFF:
            return -1
        record = bytes(reply.lead[:lead]) + bytes(packet[at:stop])
        try:
            chunk = cipher.aead.decrypt(_nonce(0, wire), record[HEADER:], header)
        except InvalidTag:
            return -1
        reply.room[room + opened : room + opened + count] = chunk
        # The first record that a packet before this one began makes a batch of its own, as it does in Ingress.
        if last or count > sizes[batch]:
            batch += 1
            if batch == MAX_BATCHES:
                return -1
            sizes[batch], lengths[batch] = count, 0
        last = count < sizes[batch] or lead > 0
        lengths[batch] += count
        opened += count
        plain += count
        wire += OVERHEAD + count
        consumed += stop - at
        at, lead = stop, 0
    reply.batches, reply.consumed = batch + 1, consumed
    reply.body_length += opened
    return opened


def go_on(reply: Reply, packet: Buffer, at: int, length: int) -> None:
    """What `open_records` has left of the `length` bytes at `at` is the lead from now on, or goes on with it."""
    begin = reply.lead_length if not reply.batches else 0
    reply.lead_length = begin + length - reply.consumed
    reply.lead[begin : reply.lead_length] = packet[at + reply.consumed : at + length]


def remember(reply: Reply, packet: Buffer, tcp_at: int) -> None:
    """The reply is made of this packet, whose TCP header is at `tcp_at`."""
    reply.tcp_at, reply.seen = tcp_at, bytes(packet[tcp_at + 8 : tcp_at + 16])


def is_alike(reply: Reply, packet: Buffer) -> bool:
    """Whether a packet with headers of the same lengths differs from the one that the reply is made of only in IPv4's
    identification, lengths, checksums, sequence number and PSH, as far as headers go.
    """
    head, at = reply.head, reply.tcp_at
    if at == 20:
        same = head[:2] == packet[:2] and head[6:10] == packet[6:10] and head[12:24] == packet[12:24]
    else:
        same = head[:4] == packet[:4] and head[6:44] == packet[6:44]
    seen, now = reply.seen, bytes(packet[at + 8 : at + 16])
    return (
        same
        and seen[:5] == now[:5]
        and not (seen[5] ^ now[5]) & 0xF7
        and seen[6:] == now[6:]
        and head[at + 20 : reply.head_length] == packet[at + 20 : reply.head_length]
    )


def add_flags(reply: Reply, tcp_at: int, packet: Buffer) -> None:
    """The reply has the flags of this packet as well."""
    reply.head[tcp_at + 13] |= packet[tcp_at + 13]


def finish(reply: Reply, tcp_at: int, ipv6: bool) -> None:
    """Write length and checksums of a reply whose headers and payload are final, and clear the urgent pointer."""
    head = reply.head
    total = reply.head_length + reply.body_length
    put16(head, tcp_at + 18, 0)
    if ipv6:
        put16(head, 4, total - 40)
    else:
        put16(head, 2, total)
        put16(head, 10, ipv4_header_checksum(head, tcp_at))
    packet = bytearray(reply.whole())
    write_tcp_checksum(packet, tcp_at, ipv6)
    head[tcp_at + 16 : tcp_at + 18] = packet[tcp_at + 16 : tcp_at + 18]


def checksum_is_right(packet: Buffer, length: int, tcp_at: int, ipv6: bool) -> bool:
    """Whether the TCP checksum of a packet is right."""
    return tcp_checksum_is_right(bytearray(packet[:length]), tcp_at, ipv6)
