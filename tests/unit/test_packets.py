"""The tests' own packets against scapy's: what the engine is judged by must itself be right."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.packet import Raw

from tests.helpers.packets import Packet, checksum, options_of, parse


def scapys(packet: Packet) -> Any:
    """The same, built by scapy."""
    tcp = TCP(sport=packet.ports[0], dport=packet.ports[1], seq=packet.seq, ack=packet.ack, flags=packet.flags,
              window=packet.window, urgptr=packet.urgent, options=[("NOP", None), ("NOP", None), ("Timestamp", (7, 9))]
              if packet.options else [])  # fmt: skip
    ip = IP(id=packet.identification, flags="DF") if len(packet.source) == 4 else IPv6(hlim=64)
    text = ".".join if len(packet.source) == 4 else ":".join
    width = 1 if len(packet.source) == 4 else 2

    def shown(address: bytes) -> str:
        parts = (int.from_bytes(address[at : at + width], "big") for at in range(0, len(address), width))
        return text(str(part) if width == 1 else f"{part:x}" for part in parts)

    ip.src, ip.dst = shown(packet.source), shown(packet.destination)
    return bytes(ip / tcp / Raw(packet.payload) if packet.payload else ip / tcp)


@pytest.mark.parametrize("width", [4, 16])
@pytest.mark.parametrize("length", [0, 1, 1460])
@pytest.mark.parametrize("options", [b"", b"\x01\x01\x08\x0a" + bytes((0, 0, 0, 7, 0, 0, 0, 9))])
def test_a_packet_is_what_scapy_builds_of_the_same_fields(width: int, length: int, options: bytes) -> None:
    dice = Random(length + width)
    packet = Packet(dice.randbytes(width), dice.randbytes(width), (40000, 7331), 2**32 - 1, 5, 0x18, 1000, options,
                    dice.randbytes(length), identification=9 if width == 4 else 1)  # fmt: skip
    assert packet.build() == scapys(packet)
    assert parse(packet.build()) == packet
    assert options_of(packet.options) == ({8: options[4:]} if options else {})


@pytest.mark.parametrize("at", [2, 11, 26, 36, 45])
def test_a_damaged_packet_is_not_read(at: int) -> None:
    raw = bytearray(Packet(bytes(4), b"\x0a\0\0\1", (1, 2), 3, 4, 0x10, 5, payload=b"payload").build())
    raw[at] ^= 1
    with pytest.raises(AssertionError):
        parse(bytes(raw))


def test_the_checksum_of_an_odd_length_counts_a_zero_more() -> None:
    assert checksum(b"\x12\x34\x56") == checksum(b"\x12\x34\x56\x00") == 0xFFFF - (0x1234 + 0x5600)
