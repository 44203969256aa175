"""Connections as a capture holds them, record by record, and what readers make of them."""

from __future__ import annotations

import random
import struct
from collections import Counter
from collections.abc import Collection, Iterable, Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.packet import Packet, Raw
from scapy.utils import PcapWriter

from mcencrypt.reading.capture import Segment, read_segment
from mcencrypt.reading.conversations import Conversation
from mcencrypt.reading.judge import Judge, Outcome
from mcencrypt.reading.report import Report, decode

KEY_ID = bytes.fromhex("1a2b3c4d5e6f7081")
PORT = 7331
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
NETWORK = bytes.fromhex("f4fef8e1")
OWN = [ip_address("10.7.0.1").packed, ip_address("fd00::1").packed]


def hello(kind: int, seed: int = 0) -> bytes:
    rest = random.Random(seed * 2 + kind).randbytes(124)
    return b"mcen" + bytes([1, kind]) + KEY_ID + rest


def message(command: str, payload: bytes = b"") -> bytes:
    """One message in MultiChain's framing; the checksum is nothing that a reader of captures looks at."""
    header = NETWORK + command.encode().ljust(12, b"\0") + struct.pack("<I", len(payload))
    return header + b"\1\2\3\4" + payload


def sealed(lengths: Iterable[int], final: bool = False, wire: int = 138, plain: int = 0) -> list[bytes]:
    """Records as the format says, one after the other."""
    cipher = AESGCM(bytes(32))
    records = []
    sizes = list(lengths)
    for index, length in enumerate(sizes):
        word = length | (0x8000 if final and index == len(sizes) - 1 else 0)
        header = struct.pack("!HI", word, plain & 0xFFFFFFFF)
        records.append(header + cipher.encrypt(struct.pack("!IQ", 0, wire), bytes(length), header))
        wire += 22 + length
        plain += length
    return records


class Tcp:
    """Both ends of a connection, writing what a capture would hold."""

    def __init__(self, port: int = 40000, isn: tuple[int, int] = (1000, 0xFFFFFF80), version: int = 4) -> None:
        self.packets: list[Packet] = []
        self.ports = (port, PORT)
        self.next = list(isn)
        self.version = version

    def packet(self, side: int, sequence: int, flags: str, payload: bytes = b"", ack: int | None = None) -> Packet:
        names = ("10.7.0.1", "10.7.0.2") if self.version == 4 else ("fd00::1", "fd00::2")
        network = (IP if self.version == 4 else IPv6)(src=names[side], dst=names[1 - side])
        segment = TCP(
            sport=self.ports[side],
            dport=self.ports[1 - side],
            seq=sequence & 0xFFFFFFFF,
            ack=(self.next[1 - side] if ack is None else ack) & 0xFFFFFFFF,
            flags=flags,
        )
        made = Ether(src=MACS[side], dst=MACS[1 - side]) / network / segment
        return made / Raw(payload) if payload else made

    def send(self, side: int, payload: bytes = b"", flags: str = "PA", captured: bool = True) -> Packet:
        made = self.packet(side, self.next[side], flags, payload)
        self.next[side] += len(payload) + ("S" in flags) + ("F" in flags)
        if captured:
            self.packets.append(made)
        return made

    def already_read(self, side: int, payloads: Iterable[bytes]) -> Iterator[Segment]:
        """What `send` would have sent, as a reader has read it: for streams too long to build packet by packet."""
        read = read_segment(bytes(self.packet(side, 0, "PA", b"x").payload), 0, Counter())
        assert read is not None
        for payload in payloads:
            yield read._replace(sequence=self.next[side] & 0xFFFFFFFF, payload=payload)
            self.next[side] += len(payload)

    def connect(self, encrypted: bool = True, seed: int = 0) -> Tcp:
        self.send(0, hello(1, seed) if encrypted else b"", "S")
        self.send(1, hello(2, seed) if encrypted else b"", "SA")
        self.send(0, b"", "A")
        return self

    def exchange(self) -> Tcp:
        """Connect, three records one way, two the other, both ends closed in order."""
        self.connect()
        for record in sealed([139, 139, 32]):
            self.send(0, record)
        self.send(1, b"".join(sealed([344, 0], final=True)), "FPA")
        self.send(0, sealed([0], True, wire=138 + 66 + 310, plain=310)[0], "FPA")
        self.send(1, b"", "A")
        return self


def written(folder: Path, packets: Iterable[Packet], name: str = "wire.pcap") -> str:
    path = str(folder / name)
    with PcapWriter(path, linktype=1) as writer:
        for packet in packets:
            writer.write(packet)
    return path


def read(folder: Path, packets: Iterable[Packet], ports: list[int] | None = None) -> Report:
    return decode(written(folder, packets), ports)


def only(report: Report) -> Conversation:
    assert len(report.conversations) == 1
    return report.conversations[0]


def segments(packets: list[Packet]) -> list[Segment]:
    oddities: Counter[str] = Counter()
    read = [read_segment(bytes(packet.payload), 0, oddities) for packet in packets]
    assert not oddities
    return [one for one in read if one is not None]


def judge(
    packets: list[Packet], dropped: int = 0, allowed: Iterable[str] = (), own: Collection[bytes] = OWN
) -> Outcome:
    """What `verify` concludes from these packets; `own`: the addresses of its host."""
    judging = Judge([PORT], own, [ip_network(one) for one in allowed])
    judging.feed(segments(packets))
    return judging.finish(10.0, len(packets), dropped, {})


def began_before(offset: int) -> list[Packet]:
    """An encrypted connection whose start was not captured; the capture begins so many bytes behind a record's."""
    tcp = Tcp()
    stream = b"".join(sealed([1380] * 8, wire=10**6, plain=0xFFFFF000))
    tcp.send(1, stream[offset:3000])
    tcp.send(1, stream[3000:])
    tcp.send(0, b"", "A")
    return tcp.packets


def with_a_hole() -> list[Packet]:
    """An encrypted connection of which one record of 1022 bytes was not captured."""
    tcp = Tcp().connect()
    for index, record in enumerate(sealed([1000] * 400)):
        tcp.send(0, record, captured=index != 20)
    tcp.send(1, b"", "A")
    return tcp.packets


def plain_connection(port: int = 40001) -> list[Packet]:
    """A connection without mcencrypt."""
    tcp = Tcp(port=port).connect(encrypted=False)
    tcp.send(0, message("version", b"x" * 115))
    tcp.send(1, message("version", b"y" * 115))
    return tcp.packets
