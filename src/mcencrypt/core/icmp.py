"""ICMP messages that tell the local socket of a smaller path (RFC 792, RFC 1191, RFC 4443)."""

from __future__ import annotations

from struct import pack

from .packet import Segment

#: Bytes of the packet that is quoted: its headers are all that the kernel looks at.
QUOTED = 128


def _checksum(data: bytes) -> int:
    """RFC 1071, for messages too short to be worth a library."""
    total = sum(int.from_bytes(data[at : at + 2].ljust(2, b"\0"), "big") for at in range(0, len(data), 2))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def too_big(segment: Segment, mtu: int) -> bytes:
    """Fragmentation needed (IPv6: packet too big) in answer to `segment`, naming `mtu` bytes.

    The whole IP packet, from the peer's address to ours; the kernel matches the quoted ports and sequence number to
    the socket (tcp_v4_err, tcp_v6_err).
    """
    quoted = bytes(segment.packet[: min(QUOTED, segment.end)])
    if segment.ipv6:
        source, destination = quoted[24:40], quoted[8:24]
        message = pack("!BBHI", 2, 0, 0, mtu) + quoted
        pseudo = source + destination + pack("!II", len(message), 58)
        message = message[:2] + _checksum(pseudo + message).to_bytes(2, "big") + message[4:]
        return pack("!IHBB", 0x60000000, len(message), 58, 64) + source + destination + message
    message = pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    message = message[:2] + _checksum(message).to_bytes(2, "big") + message[4:]
    header = pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 1, 0, 64, 1, 0) + quoted[16:20] + quoted[12:16]
    return header[:10] + _checksum(header).to_bytes(2, "big") + header[12:] + message
