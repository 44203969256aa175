"""TCP segments in IP packets: a view of the headers, and new packets made from an old one's headers.

A `Segment` is read once per packet and never written; what leaves is built by `rebuild`, which
writes lengths and both checksums in full, because the kernel takes a mangled packet as it is
(CHECKSUM_NONE).  IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import mcencrypt.core.headers as headers

from .checksum import Buffer as Buffer
from .checksum import ipv4_header_checksum, write_tcp_checksum
from .headers import source_first as source_first
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

read_word = Struct("!I").unpack_from
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
        found = headers.dissect(packet)
        if isinstance(found, str):
            raise Unusable(found)
        self.packet = packet
        (
            self.ipv6,
            self.tcp_at,
            self.payload_at,
            self.end,
            self.seq,
            self.ack,
            self.flags,
            self.window,
            self.source_first,
        ) = found

    def options(self) -> Buffer:
        """The TCP options, padding included."""
        return self.packet[self.tcp_at + 20 : self.payload_at]

    def payload(self) -> Buffer:
        return self.packet[self.payload_at : self.end]

    def ecn(self) -> int:
        """The ECN bits of the IP header (RFC 3168 section 5)."""
        return (self.packet[1] >> 4 if self.ipv6 else self.packet[1]) & 3


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
    return headers.rebuilt(
        segment.packet,
        segment.tcp_at,
        segment.payload_at,
        options,
        payload,
        seq,
        ack,
        segment.flags if flags is None else flags,
        segment.window if window is None else window,
        identification_step,
    )


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
