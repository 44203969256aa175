"""TCP segments in IP packets: a view of the headers, and new packets made from an old one's headers.

A `Segment` is read once per packet and never written; what leaves is built by `rebuild`, which
writes lengths and both checksums in full, because the kernel takes a mangled packet as it is
(CHECKSUM_NONE).  IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from .checksum import Buffer as Buffer
from .checksum import ipv4_header_checksum, write_tcp_checksum
from .reasons import Reason

FIN: Final = 0x01
SYN: Final = 0x02
RST: Final = 0x04
PSH: Final = 0x08
ACK: Final = 0x10
URG: Final = 0x20
CWR: Final = 0x80

#: The codepoint of a congested router in the two ECN bits of an IP header (RFC 3168 section 5).
CE: Final = 3

MASK32: Final = 0xFFFFFFFF
#: The largest packet that a verdict can carry: nla_len is 16 bits wide and counts its own 4-byte header.
VERDICT_LIMIT: Final = 65531

_tcp = Struct("!IIBBH").unpack_from
read_word = Struct("!I").unpack_from
_write_tcp = Struct("!IIBBHI").pack_into
_write_u16 = Struct("!H").pack_into


class Unusable(Exception):
    """A packet that is not a plain TCP segment; `reason` is what it is counted under."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(reason)
        self.reason: Reason = reason


class Segment:
    """One TCP segment (or GSO batch of segments) as NFQUEUE hands it over.

    `packet` is only valid while the verdict is being decided.  `source_first` is addresses and ports in
    the order of the packet, and identifies the connection together with the direction.
    """

    __slots__ = ("ack", "end", "flags", "ipv6", "packet", "payload_at", "seq", "source_first", "tcp_at", "window")

    def __init__(self, packet: Buffer) -> None:
        """Raises Unusable: truncated packets, fragments, extension headers, anything but TCP."""
        length = len(packet)
        if length < 40:
            raise Unusable("truncated")
        version = packet[0] >> 4
        if version == 4:
            tcp_at = (packet[0] & 15) * 4
            end = packet[2] << 8 | packet[3]
            if packet[6] & 0x3F or packet[7]:
                raise Unusable("fragment")
            if packet[9] != 6:
                raise Unusable("not-tcp")
            if tcp_at < 20:
                raise Unusable("malformed")
            ports_at = tcp_at
            self.ipv6 = False
        elif version == 6:
            tcp_at = 40
            end = 40 + (packet[4] << 8 | packet[5])
            if packet[6] != 6:
                raise Unusable("fragment" if packet[6] == 44 else "extension-header")
            ports_at = 40
            self.ipv6 = True
        else:
            raise Unusable("not-ip")
        if end > length:
            raise Unusable("truncated")
        if end < length or end < tcp_at + 20:
            raise Unusable("malformed")
        self.seq, self.ack, offset, self.flags, self.window = _tcp(packet, tcp_at + 4)
        payload_at = tcp_at + (offset >> 4) * 4
        if payload_at < tcp_at + 20 or payload_at > end:
            raise Unusable("malformed")
        self.packet = packet
        self.tcp_at = tcp_at
        self.payload_at = payload_at
        self.end = end
        if tcp_at == 20 or version == 6:  # addresses and ports stand side by side
            self.source_first = bytes(packet[8 if version == 6 else 12 : ports_at + 4])
        else:
            self.source_first = source_first(packet)

    def options(self) -> Buffer:
        """The TCP options, padding included."""
        return self.packet[self.tcp_at + 20 : self.payload_at]

    def payload(self) -> Buffer:
        return self.packet[self.payload_at : self.end]

    def ecn(self) -> int:
        """The ECN bits of the IP header (RFC 3168 section 5)."""
        return (self.packet[1] >> 4 if self.ipv6 else self.packet[1]) & 3


def source_first(packet: Buffer) -> bytes:
    """Addresses and ports in the order of an IP packet, which must have a TCP header right behind its own."""
    if packet[0] >> 4 == 6:
        return bytes(packet[8:44])
    tcp_at = (packet[0] & 15) * 4
    return bytes(packet[12:20]) + bytes(packet[tcp_at : tcp_at + 4])


def rebuild(
    segment: Segment,
    seq: int,
    ack: int,
    *payload: Buffer,
    flags: int | None = None,
    window: int | None = None,
    options: bytes | None = None,
    identification_step: int = 0,
) -> bytes:
    """A packet with `segment`'s headers and new numbers, payload and, where given, flags, window and options.

    `seq` and `ack` are taken modulo 2^32.  The urgent pointer is cleared: one flipped URG bit would make the
    receiver lose a byte.  `options` must be padded to a multiple of 4 bytes.  `identification_step` is added to
    the IPv4 identification, for packets that travel beside the original; 0 is avoided, the kernel would replace it.
    """
    old, tcp_at = segment.packet, segment.tcp_at
    if options is None:
        packet = bytearray().join((old[: segment.payload_at], *payload))
        offset = packet[tcp_at + 12]
    else:
        packet = bytearray().join((old[: tcp_at + 20], options, *payload))
        offset = (20 + len(options)) << 2 | packet[tcp_at + 12] & 0x0F
    _write_tcp(
        packet,
        tcp_at + 4,
        seq & MASK32,
        ack & MASK32,
        offset,
        (segment.flags if flags is None else flags) & ~URG,
        segment.window if window is None else window,
        0,  # checksum and urgent pointer
    )
    if segment.ipv6:
        _write_u16(packet, 4, len(packet) - 40)
    else:
        _write_u16(packet, 2, len(packet))
        if identification_step:
            _write_u16(packet, 4, ((packet[4] << 8 | packet[5]) + identification_step) & 0xFFFF or 1)
        _write_u16(packet, 10, ipv4_header_checksum(packet, tcp_at))
    write_tcp_checksum(packet, tcp_at, segment.ipv6)
    return bytes(packet)


def with_ecn(packet: bytes, ecn: int) -> bytes:
    """The same packet with other ECN bits."""
    changed = bytearray(packet)
    if packet[0] >> 4 == 6:
        changed[1] = packet[1] & 0xCF | ecn << 4
    else:
        changed[1] = packet[1] & 0xFC | ecn
        _write_u16(changed, 10, ipv4_header_checksum(changed, (packet[0] & 15) * 4))
    return bytes(changed)


def bare(source_first: bytes, seq: int, ack: int, flags: int, window: int = 0) -> bytes:
    """A segment without options or payload between the addresses and ports of `source_first`.

    For resets: RFC 9293 section 3.5.2 says which numbers they carry; a reset with ACK set acknowledges `ack`.
    """
    half = (len(source_first) - 4) // 2
    tcp = source_first[-4:] + Struct("!IIBBHHH").pack(seq & MASK32, ack & MASK32, 5 << 4, flags, window, 0, 0)
    if half == 16:
        packet = bytearray(b"\x60\0\0\0\0\x14\x06\x40" + source_first[:32] + tcp)
        write_tcp_checksum(packet, 40, True)
    else:
        packet = bytearray(b"\x45\0\0\x28\0\x01\x40\0\x40\x06\0\0" + source_first[:8] + tcp)
        _write_u16(packet, 10, ipv4_header_checksum(packet, 20))
        write_tcp_checksum(packet, 20, False)
    return bytes(packet)
