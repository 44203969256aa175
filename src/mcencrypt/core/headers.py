"""Headers of IP and TCP, read and written: what `packet` and `options` are made of.

This file is the interpreted twin of headers.pyx, which has the same functions with the same meaning in C.
IPv4 (RFC 791), IPv6 (RFC 8200), TCP (RFC 9293).
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from .checksum import Buffer, ipv4_header_checksum, tcp_checksum_is_right, write_tcp_checksum
from .kinds import AUTHENTICATION, EXPERIMENT, FAST_OPEN, MD5, MPTCP, MSS, NOP, WINDOW_SCALE, walk
from .reasons import Reason

#: What `dissect` finds: whether it is IPv6; where the TCP header, the payload and the packet's end are; sequence
#: number, acknowledgement, flags, window; addresses and ports in the order of the packet.
Dissected = tuple[bool, int, int, int, int, int, int, int, bytes]

_EXPERIMENTAL_FAST_OPEN: Final = b"\xf9\x89"  # RFC 7413 section 4.1.1
_MASK32: Final = 0xFFFFFFFF
_URG: Final = 0x20

_tcp = Struct("!IIBBH").unpack_from
_write_tcp = Struct("!IIBBHI").pack_into
_write_u16 = Struct("!H").pack_into


def dissect(packet: Buffer) -> Dissected | Reason:
    """Read the headers of a packet, or say why it is none that passes here."""
    length = len(packet)
    if length < 40:
        return "truncated"
    version = packet[0] >> 4
    if version == 4:
        tcp_at = (packet[0] & 15) * 4
        end = packet[2] << 8 | packet[3]
        if packet[6] & 0x3F or packet[7]:
            return "fragment"
        if packet[9] != 6:
            return "not-tcp"
        if tcp_at < 20:
            return "malformed"
    elif version == 6:
        tcp_at = 40
        end = 40 + (packet[4] << 8 | packet[5])
        if packet[6] != 6:
            return "fragment" if packet[6] == 44 else "extension-header"
    else:
        return "not-ip"
    if end > length:
        return "truncated"
    if end < length or end < tcp_at + 20:
        return "malformed"
    seq, ack, offset, flags, window = _tcp(packet, tcp_at + 4)
    payload_at = tcp_at + (offset >> 4) * 4
    if payload_at < tcp_at + 20 or payload_at > end:
        return "malformed"
    return version == 6, tcp_at, payload_at, end, seq, ack, flags, window, source_first(packet)


def source_first(packet: Buffer) -> bytes:
    """Addresses and ports in the order of an IP packet, which must have a TCP header right behind its own."""
    if packet[0] >> 4 == 6:
        return bytes(packet[8:44])
    tcp_at = (packet[0] & 15) * 4
    if tcp_at == 20:  # addresses and ports stand side by side
        return bytes(packet[12:24])
    return bytes(packet[12:20]) + bytes(packet[tcp_at : tcp_at + 4])


def checksum_is_right(packet: Buffer, tcp_at: int) -> bool:
    """Whether the TCP checksum of a whole packet is right; if it is not, the packet must be dropped."""
    whole = packet if isinstance(packet, memoryview) and not packet.readonly else bytearray(packet)
    return tcp_checksum_is_right(whole, tcp_at, packet[0] >> 4 == 6)


def rebuilt(
    old: Buffer,
    tcp_at: int,
    payload_at: int,
    options: bytes | None,
    payload: tuple[Buffer, ...],
    seq: int,
    ack: int,
    flags: int,
    window: int,
    identification_step: int,
) -> bytes:
    """A packet with the headers of `old`, but for what is given; `packet.rebuild` says what that means."""
    if options is None:
        packet = bytearray().join((old[:payload_at], *payload))
        offset = packet[tcp_at + 12]
    else:
        packet = bytearray().join((old[: tcp_at + 20], options, *payload))
        offset = (20 + len(options)) << 2 | packet[tcp_at + 12] & 0x0F
    # The last four bytes are checksum and urgent pointer.
    _write_tcp(packet, tcp_at + 4, seq & _MASK32, ack & _MASK32, offset, flags & ~_URG, window, 0)
    ipv6 = packet[0] >> 4 == 6
    if ipv6:
        _write_u16(packet, 4, len(packet) - 40)
    else:
        _write_u16(packet, 2, len(packet))
        if identification_step:
            _write_u16(packet, 4, ((packet[4] << 8 | packet[5]) + identification_step) & 0xFFFF or 1)
        _write_u16(packet, 10, ipv4_header_checksum(packet, tcp_at))
    write_tcp_checksum(packet, tcp_at, ipv6)
    return bytes(packet)


def syn_options(
    options: Buffer, mss: int, limit: int, overhead: int, smallest: int
) -> tuple[bytes, int, int | None, bool]:
    """What of a SYN's options may be passed on, its MSS and window scale, and whether it is signed.

    `mss` counts where the SYN names none. With a `limit`, which is negative for none, the MSS becomes the lesser of
    both, less `overhead`, but not less than `smallest`. `options.read_syn` says more.
    """
    passed = bytearray(options)
    mss_at = 0
    scale: int | None = None
    signed = False
    for kind, at, end in walk(options):
        length = end - at
        if kind == MSS and length == 4:
            mss_at = at + 2
            mss = passed[mss_at] << 8 | passed[mss_at + 1]
        elif kind == WINDOW_SCALE and length == 3:
            scale = min(passed[at + 2], 14)  # RFC 7323 section 2.3
        elif kind in (MD5, AUTHENTICATION):
            signed = True
        elif kind in (MPTCP, FAST_OPEN) or (
            kind == EXPERIMENT and length >= 4 and passed[at + 2 : at + 4] == _EXPERIMENTAL_FAST_OPEN
        ):
            passed[at:end] = bytes((NOP,)) * length
    if limit >= 0:
        mss = max(min(mss, limit) - overhead, smallest)
        if mss_at:
            passed[mss_at : mss_at + 2] = mss.to_bytes(2, "big")
        elif len(passed) <= 36:  # the header has room for 40 bytes of options
            passed[:0] = bytes((MSS, 4)) + mss.to_bytes(2, "big")
    return bytes(passed), mss, scale, signed
