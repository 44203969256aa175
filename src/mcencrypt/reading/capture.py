"""Capture files: TCP segments out of pcap and pcapng, as tcpdump, wireshark and scapy write them.

scapy opens the files; its packet classes would take most of a millisecond per packet, so the few header
fields that are needed are read here.
"""

from __future__ import annotations

import logging
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from socket import AF_INET, AF_INET6, inet_ntop
from struct import Struct
from typing import Any, NamedTuple

from mcencrypt.errors import OperatorError
from mcencrypt.reading.frames import IP_PACKET, KNOWN, inside, is_tunnel, network_packet

FIN, SYN, RST, ACK = 0x01, 0x02, 0x04, 0x10
TCP = 6
_LONGEST_FRAME = 256 * 1024
_PORTS = Struct("!HHIIBB").unpack_from
_EXTENSIONS = {0, 43, 60}  # hop-by-hop, routing, destination options (RFC 8200 section 4)
_FRAGMENT = 44
#: Why a packet is not read whose tunnel is within so many others.
_DEEPEST = 8


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

    `oddities` counts what could not be read as a segment though it may carry one: frames and packets of forms that are
    not known, fragments, cut headers, a damaged file.

    Raises OperatorError if there is no such file, it is no capture, or no link type in it is known.
    """
    reader = _open(path)
    strange, known = set(), False
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
            if link in KNOWN:
                known = True
            else:
                strange.add(link)
            packet = network_packet(frame, link, oddities)
            if packet is not None:
                segment = read_segment(packet, max(0, metadata.wirelen - len(frame)), oddities)
                if segment is not None:
                    yield segment
        if reader.f.read(1):
            oddities["damaged file: it goes on after the last packet that can be read"] += 1
        if strange and not known:
            types = ", ".join(map(str, sorted(strange)))
            raise OperatorError(f"{path} has the unknown link type {types}: capture on an Ethernet interface")
    finally:
        reader.close()


def _open(path: str) -> Any:
    # scapy warns of what it finds in a file, and of what is missing on this machine; a reader is told by us.
    logging.getLogger("scapy").addFilter(lambda record: False)
    for name in ("runtime", "loading", "interactive"):
        logging.getLogger(f"scapy.{name}").addFilter(lambda record: False)
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


def read_segment(packet: bytes, cut: int, oddities: Counter[str]) -> Segment | None:
    """The TCP segment in an IP packet, or in the packets that tunnels carry in it; None if there is none.

    `cut`: bytes that are missing at its end.
    """
    for _ in range(_DEEPEST):
        header = _read_header(packet, cut, oddities)
        if header is None:
            return None
        if header.protocol == TCP and not header.fragment:
            return _read_tcp(packet, header.at, header, oddities)
        data = packet[header.at :]
        if header.fragment:
            if header.protocol == TCP or is_tunnel(header.protocol, data):
                oddities[f"IP fragment of a {'TCP segment' if header.protocol == TCP else 'tunnel'}"] += 1
            return None
        found: tuple[int, bytes] | None = header.protocol, data
        while found and found[0] not in (TCP, IP_PACKET):
            found = inside(*found, oddities)
        if found is None:
            return None
        if found[0] == TCP:  # behind an authentication header
            return _read_tcp(packet, len(packet) - len(found[1]), header, oddities)
        packet = found[1]
    oddities[f"more than {_DEEPEST} tunnels in each other"] += 1
    return None


class _Header(NamedTuple):
    """What is needed of an IP header: where what it carries begins, and how long the packet says that it is."""

    at: int
    protocol: int
    fragment: int
    total: int
    source: bytes
    destination: bytes


def _read_header(packet: bytes, cut: int, oddities: Counter[str]) -> _Header | None:
    version = packet[0] >> 4 if packet else 0
    if version == 4 and len(packet) >= 20:
        fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
        # 0: longer than the field can say, or left to the NIC's segmentation.
        total = int.from_bytes(packet[2:4], "big") or len(packet) + cut
        return _Header((packet[0] & 15) * 4, packet[9], fragment, total, packet[12:16], packet[16:20])
    if version == 6 and len(packet) >= 40:
        at, protocol, fragment = 40, packet[6], 0
        length = int.from_bytes(packet[4:6], "big")
        total = 40 + length if length else len(packet) + cut
        while protocol in _EXTENSIONS and at + 2 <= len(packet):
            protocol, at = packet[at], at + (packet[at + 1] + 1) * 8
        if protocol == _FRAGMENT and at + 8 <= len(packet):
            fragment = int.from_bytes(packet[at + 2 : at + 4], "big") & 0xFFF9
            protocol, at = packet[at], at + 8
        return _Header(at, protocol, fragment, total, packet[8:24], packet[24:40])
    oddities["packet without a whole IP header"] += 1
    return None


def _read_tcp(packet: bytes, at: int, header: _Header, oddities: Counter[str]) -> Segment | None:
    if at + 20 > len(packet):
        oddities["packet without a whole TCP header"] += 1
        return None
    source_port, destination_port, sequence, acknowledgement, offset, flags = _PORTS(packet, at)
    start = at + (offset >> 4) * 4
    if offset >> 4 < 5 or start > header.total:
        oddities["malformed TCP header"] += 1
        return None
    payload = packet[start : header.total]
    missing = header.total - start - len(payload)
    return Segment(
        header.source, header.destination, source_port, destination_port, sequence, acknowledgement, flags, payload,
        missing,
    )  # fmt: skip
