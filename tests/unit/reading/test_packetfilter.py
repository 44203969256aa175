"""The kernel's filter, run here as the kernel runs it."""

from __future__ import annotations

import struct

import pytest

from mcencrypt.reading.packetfilter import MAX_PORTS, tcp_filter
from tests.helpers.captures import (
    PORT,
    Tcp,
)


def passes(program: bytes, packet: bytes, protocol: int, hardware: int = 1) -> bool:
    """Run classic BPF as the kernel does (net/core/filter.c), as far as our filters use it."""
    lines = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    assert len(lines) <= 4096
    accumulator = index = at = 0
    while True:
        code, yes, no, value = lines[at]
        at += 1
        if code == 0x06:
            return bool(value)
        if code == 0x15:
            at += yes if accumulator == value else no
        elif code == 0x45:
            at += yes if accumulator & value else no
        elif code == 0x01:
            index = value
        elif code == 0xB1:
            index = 4 * (packet[value] & 15)
        elif code == 0x20:
            accumulator = {0xFFFFF000: protocol, 0xFFFFF000 + 28: hardware}[value]
        else:
            size = {0x30: 1, 0x28: 2, 0x48: 2}[code]
            start = value + (index if code == 0x48 else 0)
            if start + size > len(packet):
                return False
            accumulator = int.from_bytes(packet[start : start + size], "big")


@pytest.mark.parametrize("count", [1, 3, MAX_PORTS, MAX_PORTS + 1])
@pytest.mark.parametrize("version", [4, 6])
def test_the_filter_passes_our_ports_and_only_them(count: int, version: int) -> None:
    program = tcp_filter([PORT, *range(9000, 9000 + count - 1)])
    protocol = 0x0800 if version == 4 else 0x86DD
    tcp = Tcp(version=version).exchange()
    for packet in tcp.packets:
        assert passes(program, bytes(packet.payload), protocol)
        assert not passes(program, bytes(packet.payload), protocol, hardware=772), "loopback"
    other = Tcp(version=version)
    other.ports = (40000, 7332)
    for packet in other.exchange().packets:
        assert passes(program, bytes(packet.payload), protocol) == (count > MAX_PORTS)
    udp = bytearray(bytes(tcp.packets[0].payload))
    udp[9 if version == 4 else 6] = 17
    assert not passes(program, bytes(udp), protocol)
    assert not passes(program, bytes(udp), 0x0806), "ARP"
    assert passes(program, b"\0\7" + protocol.to_bytes(2, "big") + bytes(udp), 0x8100), "a tag, for the reader to judge"
    fragment = bytearray(bytes(tcp.packets[0].payload))
    if version == 4:
        fragment[7] = 9
        assert passes(program, bytes(fragment), protocol)
    else:
        fragment[6] = 44
        assert passes(program, bytes(fragment), protocol)
