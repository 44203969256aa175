"""ICMP messages about a smaller path, against scapy."""

from __future__ import annotations

from random import Random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, IPerror, TCPerror
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

from mcencrypt.core.icmp import QUOTED, too_big
from mcencrypt.core.packet import Segment

LENGTHS = (0, 1, 2, 55, 56, 57, 76, 77, 87, 88, 89, 1448, 60001)
MTUS = (68, 1280, 1378, 65535)


def segment(dice: Random, length: int, ip: IP | IPv6) -> bytes:
    tcp = TCP(sport=7331, dport=dice.randrange(1, 65536), flags="PA")
    tcp.seq, tcp.ack = dice.getrandbits(32), dice.getrandbits(32)
    if dice.randrange(2):
        tcp.options = [("NOP", None), ("NOP", None), ("Timestamp", (dice.getrandbits(32), 2))]
    return bytes(ip / tcp / dice.randbytes(length))


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("options", [b"", b"\x01" * 4, b"\x01" * 40])
@pytest.mark.parametrize("mtu", MTUS)
def test_fragmentation_needed(length: int, options: bytes, mtu: int) -> None:
    dice = Random(length + mtu)
    raw = segment(dice, length, IP(src="10.1.2.3", dst="192.0.2.77", flags="DF", options=options))
    message = too_big(Segment(memoryview(bytearray(raw))), mtu)
    quoted = raw[:QUOTED]
    expected = (
        IP(src="192.0.2.77", dst="10.1.2.3", id=1, flags=0, ttl=64) / ICMP(type=3, code=4, nexthopmtu=mtu) / quoted
    )
    assert message == bytes(expected)


def test_the_kernel_finds_what_it_looks_for_in_the_quote() -> None:
    raw = segment(Random(1), 1448, IP(src="10.1.2.3", dst="192.0.2.77", flags="DF"))
    sent, read = IP(raw), IP(too_big(Segment(raw), 1378))
    assert (read[ICMP].type, read[ICMP].code, read[ICMP].nexthopmtu) == (3, 4, 1378)
    assert (read[IPerror].src, read[IPerror].dst) == (sent.src, sent.dst)
    assert (read[TCPerror].sport, read[TCPerror].dport, read[TCPerror].seq) == (7331, sent[TCP].dport, sent[TCP].seq)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("mtu", MTUS[1:])
def test_packet_too_big(length: int, mtu: int) -> None:
    dice = Random(length + mtu)
    raw = segment(dice, length, IPv6(src="fd00::1:2", dst="2001:db8::77", fl=0x12345, tc=8))
    message = too_big(Segment(memoryview(bytearray(raw))), mtu)
    quoted = raw[:QUOTED]
    expected = IPv6(src="2001:db8::77", dst="fd00::1:2", hlim=64) / ICMPv6PacketTooBig(mtu=mtu) / quoted
    assert message == bytes(expected)
    read = IPv6(message)
    assert (read[ICMPv6PacketTooBig].type, read[ICMPv6PacketTooBig].code) == (2, 0)
    assert len(message) <= 1280, "RFC 4443 section 2.4"
