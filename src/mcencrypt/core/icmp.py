"""ICMP errors about our own packets: from routers, quoting wire space, and made here, quoting plain space.

RFC 792, RFC 1191, RFC 4443.  The kernel matches the quoted ports and sequence number to a socket and acts on it if that
number is under way (tcp_v4_err, tcp_v6_err); anything else in the quotation is for people.
"""

from __future__ import annotations

from struct import pack
from typing import Final, NamedTuple

from .packet import Buffer, Segment

#: Bytes of the packet that is quoted: its headers are all that the kernel looks at.
QUOTED = 128


#: ICMP that quotes a packet: destination unreachable, redirect, time exceeded, parameter problem; for IPv6 destination
#: unreachable, packet too big, time exceeded, parameter problem.
ERRORS_IPV4: Final = (3, 5, 11, 12)
ERRORS_IPV6: Final = (1, 2, 3, 4)
_ICMP, _ICMPV6, _TCP = 1, 58, 6


class Quotation(NamedTuple):
    """What an ICMP error says of a segment that we sent."""

    #: The connection, ours first.
    key: bytes
    #: Sequence number on the network.
    seq: int
    #: The MTU that a router names, in bytes; None if the error is of another kind.
    mtu: int | None
    #: Where in the packet the message begins, and the sequence number.
    message_at: int
    seq_at: int


def is_icmp(packet: Buffer) -> bool:
    """Whether an IP packet carries ICMP of its version, right behind its own header."""
    return len(packet) >= 20 and bool(packet[6] == _ICMPV6 if packet[0] >> 4 == 6 else packet[9] == _ICMP)


def read_error(packet: Buffer) -> Quotation | None:
    """What an ICMP packet, whole and in one piece, quotes; None unless that is a TCP segment of the same IP version."""
    ipv6 = packet[0] >> 4 == 6
    at = 40 if ipv6 else (packet[0] & 15) * 4
    quoted = at + 8
    if len(packet) < quoted + (48 if ipv6 else 28) or packet[at] not in (ERRORS_IPV6 if ipv6 else ERRORS_IPV4):
        return None
    if packet[quoted] >> 4 != packet[0] >> 4:
        return None
    if ipv6:
        tcp_at = quoted + 40
        if packet[quoted + 6] != _TCP:
            return None
        addresses = bytes(packet[quoted + 8 : quoted + 40])
        mtu = int.from_bytes(packet[at + 4 : at + 8], "big") if packet[at] == 2 else None
    else:
        header = (packet[quoted] & 15) * 4
        tcp_at = quoted + header
        behind_a_fragment = packet[quoted + 6] & 0x1F or packet[quoted + 7]
        if header < 20 or packet[quoted + 9] != _TCP or behind_a_fragment or len(packet) < tcp_at + 8:
            return None
        addresses = bytes(packet[quoted + 12 : quoted + 20])
        too_big = packet[at] == 3 and packet[at + 1] == 4
        mtu = int.from_bytes(packet[at + 6 : at + 8], "big") if too_big else None
    key = addresses + bytes(packet[tcp_at : tcp_at + 4])
    return Quotation(key, int.from_bytes(packet[tcp_at + 4 : tcp_at + 8], "big"), mtu, at, tcp_at + 4)


def checksum_is_right(packet: Buffer, quotation: Quotation) -> bool:
    """Of the ICMP message in a packet."""
    return _checksum(_covered(packet, quotation.message_at)) == 0


def rewrite(packet: Buffer, quotation: Quotation, seq: int, mtu: int | None) -> bytes:
    """The packet with another sequence number in its quotation and, if one is given, another MTU."""
    changed, at = bytearray(packet), quotation.message_at
    changed[quotation.seq_at : quotation.seq_at + 4] = seq.to_bytes(4, "big")
    if mtu is not None:
        changed[at + 6 : at + 8] = min(mtu, 0xFFFF).to_bytes(2, "big")
        if changed[0] >> 4 == 6:
            changed[at + 4 : at + 8] = mtu.to_bytes(4, "big")
    changed[at + 2 : at + 4] = b"\0\0"
    changed[at + 2 : at + 4] = _checksum(_covered(changed, at)).to_bytes(2, "big")
    return bytes(changed)


def _covered(packet: Buffer, at: int) -> bytes:
    """What the checksum of the message at `at` covers; for IPv6 with the pseudo header (RFC 4443, section 2.3)."""
    message = bytes(packet[at:])
    return message if packet[0] >> 4 == 4 else _pseudo_header(bytes(packet[8:40]), len(message)) + message


def _pseudo_header(addresses: bytes, length: int) -> bytes:
    return addresses + pack("!II", length, _ICMPV6)


def _checksum(data: bytes) -> int:
    """RFC 1071: the complement of the sum of all 16-bit words.  A sum that is not zero folds to 65535, never to 0."""
    total = int.from_bytes(data if len(data) % 2 == 0 else data + b"\0", "big")
    return 0xFFFF - (total % 0xFFFF or (0xFFFF if total else 0))


def too_big(segment: Segment, mtu: int) -> bytes:
    """Fragmentation needed (IPv6: packet too big) in answer to `segment`, naming `mtu` bytes.

    The whole IP packet, from the peer's address to ours; the kernel matches the quoted ports and sequence number to
    the socket (tcp_v4_err, tcp_v6_err).
    """
    quoted = bytes(segment.packet[: min(QUOTED, segment.end)])
    if segment.ipv6:
        source, destination = quoted[24:40], quoted[8:24]
        message = pack("!BBHI", 2, 0, 0, mtu) + quoted
        pseudo = _pseudo_header(source + destination, len(message))
        message = message[:2] + _checksum(pseudo + message).to_bytes(2, "big") + message[4:]
        return pack("!IHBB", 0x60000000, len(message), 58, 64) + source + destination + message
    message = pack("!BBHHH", 3, 4, 0, 0, mtu) + quoted
    message = message[:2] + _checksum(message).to_bytes(2, "big") + message[4:]
    header = pack("!BBHHHBBH", 0x45, 0, 20 + len(message), 1, 0, 64, 1, 0) + quoted[16:20] + quoted[12:16]
    return header[:10] + _checksum(header).to_bytes(2, "big") + header[12:] + message
