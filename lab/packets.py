"""Just enough of Ethernet, IP and TCP to look into a frame and to write a changed one with right checksums.

Kept apart from the code under test on purpose: what judges a header should not share its mistakes.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

ETHERNET = 14
_IPV4, _IPV6, _TCP = 0x0800, 0x86DD, 6
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def ones_complement_sum(data: bytes) -> int:
    """The internet checksum's sum over big-endian 16-bit words, folded (RFC 1071); an odd end is padded
    with 0.
    """
    if len(data) % 2:
        data += b"\0"
    return int.from_bytes(data, "big") % 0xFFFF


@dataclass(frozen=True)
class TcpFrame:
    """An Ethernet frame that carries an unfragmented TCP segment.

    `packed()` writes it with right checksums.
    """

    ethernet: bytes
    #: IP header with options; its length and checksum fields are written anew by `packed`.
    ip: bytes = field(repr=False)
    source: bytes
    destination: bytes
    ports: tuple[int, int]
    sequence: int
    acknowledgement: int
    flags: int
    window: int
    urgent: int
    options: bytes
    payload: bytes = field(repr=False)

    @property
    def version(self) -> int:
        """4 or 6."""
        return self.ip[0] >> 4

    @property
    def flow(self) -> tuple[bytes, int, bytes, int]:
        """Source address and port, destination address and port: one direction of one connection."""
        return self.source, self.ports[0], self.destination, self.ports[1]

    def with_payload(self, sequence: int, payload: bytes, flags: int) -> TcpFrame:
        """The same segment with other data in it."""
        return replace(self, sequence=sequence & 0xFFFFFFFF, payload=payload, flags=flags)

    def packed(self) -> bytes:
        """The frame in bytes. A TCP segment that IP cannot hold raises ValueError."""
        offset = 20 + len(self.options)
        tcp = (
            struct.pack(
                ">HHIIBBHHH",
                *self.ports,
                self.sequence,
                self.acknowledgement,
                offset // 4 << 4,
                self.flags,
                self.window,
                0,
                self.urgent,
            )
            + self.options
            + self.payload
        )
        checksum = 0xFFFF - ones_complement_sum(
            self.source + self.destination + struct.pack(">II", len(tcp), _TCP) + tcp
        )
        tcp = tcp[:16] + checksum.to_bytes(2, "big") + tcp[18:]
        ip = bytearray(self.ip)
        length = len(tcp) + (len(ip) if self.version == 4 else 0)
        if length > 0xFFFF:
            raise ValueError(f"a segment of {length} bytes does not fit IPv{self.version}")
        if self.version == 4:
            ip[2:4] = length.to_bytes(2, "big")
            ip[10:12] = b"\0\0"
            ip[10:12] = (0xFFFF - ones_complement_sum(bytes(ip))).to_bytes(2, "big")
        else:
            ip[4:6] = length.to_bytes(2, "big")
        return self.ethernet + bytes(ip) + tcp


def locate(frame: bytes | memoryview) -> tuple[int, int, int] | None:
    """Where the TCP header, its payload, and the end of the payload are in an Ethernet frame.

    None for all that is not unfragmented TCP over IPv4, or IPv6 without extension headers, or is cut off. An
    IPv4 total length of 0 (a batch of 64 KB or more) stands for all there is.
    """
    size = len(frame)
    if size < ETHERNET + 40:
        return None
    kind = frame[12] << 8 | frame[13]
    if kind == _IPV4 and frame[14] >> 4 == 4:
        total = frame[16] << 8 | frame[17]
        start = ETHERNET + (frame[14] & 15) * 4
        # 0x3FFF: more fragments, or not the first
        if frame[23] != _TCP or (frame[20] << 8 | frame[21]) & 0x3FFF:
            return None
        end = ETHERNET + total if total else size
    elif kind == _IPV6 and frame[14] >> 4 == 6:
        length = frame[18] << 8 | frame[19]
        start = ETHERNET + 40
        if frame[20] != _TCP:
            return None
        end = start + length if length else size
    else:
        return None
    if start + 20 > size:
        return None
    data = start + (frame[start + 12] >> 4) * 4
    if data < start + 20 or data > end or end > size:
        return None
    return start, data, end


def parse(frame: bytes) -> TcpFrame | None:
    """The TCP segment in an Ethernet frame, or None if there is none (see `locate`).

    Checksums are not looked at.
    """
    where = locate(frame)
    if where is None:
        return None
    start, data, end = where
    ip = frame[ETHERNET:start]
    source, destination = (ip[12:16], ip[16:20]) if ip[0] >> 4 == 4 else (ip[8:24], ip[24:40])
    source_port, destination_port, sequence, acknowledgement, _, flags, window, _, urgent = struct.unpack(
        ">HHIIBBHHH", frame[start : start + 20]
    )
    return TcpFrame(
        frame[:ETHERNET],
        ip,
        source,
        destination,
        (source_port, destination_port),
        sequence,
        acknowledgement,
        flags,
        window,
        urgent,
        frame[start + 20 : data],
        frame[data:end],
    )
