"""Internet checksums (RFC 1071).

Small packets are summed as one big integer: 2^16 is 1 modulo 65535, so a number's remainder is the sum of its 16-bit
words.  For large ones that is slow, and libnetfilter_queue, which NetfilterQueue needs anyway, sums a 64 KB batch in a
tenth of the time.  All functions take whole IP packets with a TCP header directly behind the IP header, which is all
that the packet path lets through.
"""

from __future__ import annotations

import ctypes
from typing import Final

Buffer = bytes | bytearray | memoryview

_library = ctypes.CDLL("libnetfilter_queue.so.1")
_compute_ipv4 = _library.nfq_tcp_compute_checksum_ipv4
_compute_ipv6 = _library.nfq_tcp_compute_checksum_ipv6
for _function in (_compute_ipv4, _compute_ipv6):
    _function.argtypes = (ctypes.c_void_p, ctypes.c_void_p)
    _function.restype = None

_char = ctypes.c_char
_address = ctypes.addressof
_number = int.from_bytes
_TCP: Final = 6

#: Packets up to this many bytes are summed in Python.
SMALL: Final = 600


def ipv4_header_checksum(packet: Buffer, length: int) -> int:
    """The checksum of an IPv4 header of `length` bytes, whatever its checksum field holds now."""
    return -(_number(packet[:length], "big") - (packet[10] << 8 | packet[11])) % 65535


def _sum(packet: Buffer, tcp_at: int, ipv6: bool) -> int:
    """The sum modulo 65535 of pseudo header and TCP segment, checksum field included."""
    length = len(packet)
    if ipv6 or tcp_at == 20:  # the addresses stand right before the TCP header
        total = _number(packet[8 if ipv6 else 12 :], "big")
    else:
        total = (_number(packet[12:20], "big") << (length - tcp_at) * 8) + _number(packet[tcp_at:], "big")
    if length - tcp_at & 1:
        total <<= 8
    return (total + _TCP + length - tcp_at) % 65535


def write_tcp_checksum(packet: bytearray | memoryview, tcp_at: int, ipv6: bool) -> None:
    """Write the TCP checksum of a whole IP packet; the IP header must already carry its final length."""
    if len(packet) <= SMALL:
        field = tcp_at + 16
        value = -(_sum(packet, tcp_at, ipv6) - (packet[field] << 8 | packet[field + 1])) % 65535
        packet[field] = value >> 8
        packet[field + 1] = value & 0xFF
    else:
        start = _address(_char.from_buffer(packet))
        (_compute_ipv6 if ipv6 else _compute_ipv4)(start + tcp_at, start)


def tcp_checksum_is_right(packet: bytearray | memoryview, tcp_at: int, ipv6: bool) -> bool:
    """Whether a received packet's TCP checksum is right.

    The library writes where it computes, so afterwards the field of a large packet holds the right sum in any
    case: a packet for which this is False must be dropped.
    """
    if len(packet) <= SMALL:
        return not _sum(packet, tcp_at, ipv6)
    found = packet[tcp_at + 16 : tcp_at + 18].hex()
    write_tcp_checksum(packet, tcp_at, ipv6)
    return bool(packet[tcp_at + 16 : tcp_at + 18].hex() == found)
