"""Capture files: TCP segments out of pcap and pcapng, as tcpdump, wireshark and scapy write them.

scapy opens the files; its packet classes would take most of a millisecond per packet, so the few header
fields that are needed are read here.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop
from struct import Struct
from typing import Any, NamedTuple

from mcencrypt.errors import OperatorError

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
TCP = 6
_LONGEST_FRAME = 256 * 1024
_PORTS = Struct("!HHIIBB").unpack_from
_EXTENSIONS = {0, 43, 60}  # hop-by-hop, routing, destination options (RFC 8200 section 4)
_FRAGMENT = 44
_VLAN = {0x8100, 0x88A8}
# Link types of tcpdump.org/linktypes.html: length of what precedes the protocol number, and where that is.
_ETHERNET, _LINUX_SLL, _LINUX_SLL2 = 1, 113, 276
_RAW = {12, 14, 101, 228, 229}
_LOOP = {0, 108}


class Segment(NamedTuple):
    """One TCP segment. Its checksum is not looked at: offloads finish it after the capture."""

    source: bytes
    destination: bytes
    source_port: int
    destination_port: int
    sequence: int
    acknowledgement: int
    flags: int
    payload: bytes
    #: Bytes of the payload that the capture cut off.
    missing: int


def address_text(address: bytes, port: int) -> str:
    """``10.0.0.1:7331`` or ``[fd00::1]:7331``."""
    if len(address) == 4:
        return f"{inet_ntop(AF_INET, address)}:{port}"
    return f"[{inet_ntop(AF_INET6, address)}]:{port}"


def segments(path: str, oddities: Counter[str]) -> Iterator[Segment]:
    """The TCP segments of the capture file `path` (``-``: standard input), in the file's order.

    `oddities` counts what could not be read as a segment though it may carry one: fragments, cut headers, a
    damaged file.

    Raises OperatorError if there is no such file, it is no capture, or its link type is not known.
    """
    reader = _open(path)
    try:
        file_link = getattr(reader, "linktype", None)
        while True:
            try:
                frame, metadata = reader._read_packet(_LONGEST_FRAME)
            except EOFError:
                break
            except Exception as error:  # scapy has no narrower promise about damaged files
                oddities[f"damaged file: {error}"] += 1
                break
            link = metadata.linktype if file_link is None else file_link
            packet = _network_packet(frame, link, path)
            if packet is not None:
                segment = read_segment(packet, max(0, metadata.wirelen - len(frame)), oddities)
                if segment is not None:
                    yield segment
        if reader.f.read(1):
            oddities["damaged file: it goes on after the last packet that can be read"] += 1
    finally:
        reader.close()


def _open(path: str) -> Any:
    try:
        from scapy.error import Scapy_Exception
        from scapy.utils import RawPcapReader
    except ImportError:
        raise OperatorError("capture files are opened with scapy, which is not installed: pip install scapy") from None

    reader: Any = RawPcapReader

    try:
        if path == "-":
            return reader(sys.stdin.buffer)
        if not Path(path).is_file():
            # A FIFO has no size and cannot be peeked at twice, but can be read like standard input.
            return reader(open(path, "rb"))
        return reader(path)
    except Scapy_Exception:
        raise OperatorError(f"{path} is no pcap or pcapng file: record one with `tcpdump -w FILE`") from None
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror or error}") from None


def _network_packet(frame: bytes, link: int, path: str) -> bytes | None:
    """The IP packet in a link layer's frame, None if there is none."""
    if link == _ETHERNET:
        at = 12
        while int.from_bytes(frame[at : at + 2], "big") in _VLAN:
            at += 4
        kind, start = int.from_bytes(frame[at : at + 2], "big"), at + 2
    elif link == _LINUX_SLL:
        kind, start = int.from_bytes(frame[14:16], "big"), 16
    elif link == _LINUX_SLL2:
        kind, start = int.from_bytes(frame[:2], "big"), 20
    elif link in _RAW or link in _LOOP:
        start = 4 if link in _LOOP else 0
        kind = {4: 0x0800, 6: 0x86DD}.get(frame[start] >> 4, 0) if len(frame) > start else 0
    else:
        raise OperatorError(f"{path} has the unknown link type {link}: capture on an Ethernet interface")
    return frame[start:] if kind in (0x0800, 0x86DD) else None


def read_segment(packet: bytes, cut: int, oddities: Counter[str]) -> Segment | None:
    """The TCP segment in an IP packet, None if there is none. `cut`: bytes that are missing at its end."""
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        at = (packet[0] & 15) * 4
        protocol = packet[9]
        fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
        # 0: longer than the field can say, or left to the NIC's segmentation.
        total = int.from_bytes(packet[2:4], "big") or len(packet) + cut
        source, destination = packet[12:16], packet[16:20]
    elif version == 6 and len(packet) >= 40:
        at, protocol, fragment = 40, packet[6], 0
        length = int.from_bytes(packet[4:6], "big")
        total = 40 + length if length else len(packet) + cut
        source, destination = packet[8:24], packet[24:40]
        while protocol in _EXTENSIONS and at + 2 <= len(packet):
            protocol, at = packet[at], at + (packet[at + 1] + 1) * 8
        if protocol == _FRAGMENT and at + 8 <= len(packet):
            fragment = int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF9
            protocol, at = packet[at], at + 8
    else:
        oddities["packet without a whole IP header"] += 1
        return None
    if protocol != TCP:
        return None
    if fragment:
        oddities["IP fragment of a TCP segment"] += 1
        return None
    if at + 20 > len(packet):
        oddities["packet without a whole TCP header"] += 1
        return None
    source_port, destination_port, sequence, acknowledgement, offset, flags = _PORTS(packet, at)
    start = at + (offset >> 4) * 4
    if offset >> 4 < 5 or start > total:
        oddities["malformed TCP header"] += 1
        return None
    payload = packet[start:total]
    missing = total - start - len(payload)
    return Segment(
        source, destination, source_port, destination_port, sequence, acknowledgement, flags, payload, missing
    )
