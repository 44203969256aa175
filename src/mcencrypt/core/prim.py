"""The few operations on bytes under `fast` and `noise`: read and write numbers, seal, open, hash, sum.

This file is the interpreted twin of prim.pyx, which has the same functions with the same meaning in C; `fast.pxd` takes
that one when `fast` is compiled. A packet is whatever holds bytes here and a pointer there, so nothing in `fast` may
slice one.
"""

from __future__ import annotations

import hashlib
import hmac
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


def sha256(first: bytes, second: bytes) -> bytes:
    """SHA-256 of two pieces, one behind the other."""
    return hashlib.sha256(first + second).digest()


def hkdf(chaining_key: bytes, material: bytes, outputs: int) -> bytes:
    """HKDF as Noise has it (4.3; RFC 5869 without info): `outputs` keys of 32 bytes, 1 to 3, in a row.

    The chaining key has 32 bytes.  Raises ValueError.
    """
    if len(chaining_key) != 32 or not 1 <= outputs <= 3:
        raise ValueError("a chaining key has 32 bytes, and gives 1 to 3 keys")
    temp = hmac.digest(chaining_key, material, "sha256")
    keys = last = b""
    for number in range(1, outputs + 1):
        last = hmac.digest(temp, last + bytes((number,)), "sha256")
        keys += last
    return keys


def encrypt(key: bytes, number: int, plaintext: bytes, associated: bytes) -> bytes:
    """AES-256-GCM with tag, under the nonce that Noise makes of a number (12.3): for what is encrypted once."""
    return AESGCM(key).encrypt(_nonce(0, number), plaintext, associated)


def decrypt(key: bytes, number: int, sealed: bytes, associated: bytes) -> bytes | None:
    """What `encrypt` has sealed; None if it is not authentic."""
    try:
        return AESGCM(key).decrypt(_nonce(0, number), sealed, associated)
    except InvalidTag:
        return None


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

    `head_length` and `body_length` are in bytes. `first_size` and `records` tell what `open_records` found: plaintext
    bytes of the first record, and how many there were.
    """

    __slots__ = ("blob", "body_length", "first_size", "head", "head_length", "records", "room")

    def __init__(self) -> None:
        self.head = bytearray(HEAD_ROOM)
        self.room = bytearray(BODY_ROOM)
        self.head_length = self.body_length = self.first_size = self.records = 0
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


def open_records(cipher: Cipher, wire: int, plain: int, packet: Buffer, at: int, length: int, reply: Reply) -> int:
    """Open the records at `at`, `length` bytes in all, into the reply's room: returns the plaintext bytes.

    -1, and the reply's payload is void, unless they are whole, authentic, none of them FINAL, in one stream from plain
    offset `plain` and wire offset `wire` on, and all of one size, but for the last, which may be shorter.
    """
    end, opened = at + length, 0
    reply.records = reply.body_length = 0
    reply.blob = None
    last = False
    while at < end:
        if at + OVERHEAD > end:
            return -1
        count, offset = _header.unpack_from(packet, at)
        stop = at + OVERHEAD + count
        if count >= FINAL or stop > end or last or not count or offset != plain & 0xFFFFFFFF:
            return -1
        if not reply.records:
            reply.first_size = count
        elif count > reply.first_size:
            return -1
        last = count < reply.first_size
        try:
            chunk = cipher.aead.decrypt(
                _nonce(0, wire), bytes(packet[at + HEADER : stop]), bytes(packet[at : at + HEADER])
            )
        except InvalidTag:
            return -1
        reply.room[opened : opened + count] = chunk
        reply.records += 1
        opened += count
        plain += count
        wire += stop - at
        at = stop
    reply.body_length = opened
    return opened


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
