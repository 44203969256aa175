"""ICMP errors about our packets, made here and from routers, against scapy."""

from __future__ import annotations

from random import Random

import pytest
from scapy.layers.inet import ICMP, IP, TCP, UDP, IPerror, TCPerror
from scapy.layers.inet6 import (
    ICMPv6DestUnreach,
    ICMPv6EchoRequest,
    ICMPv6PacketTooBig,
    ICMPv6ParamProblem,
    ICMPv6TimeExceeded,
    IPv6,
    IPv6ExtHdrFragment,
)
from scapy.packet import Packet

from mcencrypt.core.icmp import QUOTED, checksum_is_right, is_icmp, read_error, rewrite, too_big
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


# -- from routers

OUT4 = IP(src="10.1.2.3", dst="192.0.2.77", flags="DF", id=7) / TCP(sport=7331, dport=40000, seq=0x01020304, flags="PA")
OUT6 = IPv6(src="fd00::1:2", dst="2001:db8::77", fl=5) / TCP(sport=7331, dport=40000, seq=0x01020304, flags="PA")
KEY4 = bytes((10, 1, 2, 3, 192, 0, 2, 77)) + (7331).to_bytes(2) + (40000).to_bytes(2)
KEY6 = bytes(IPv6(src="fd00::1:2", dst="2001:db8::77"))[8:40] + KEY4[-4:]
FROM4, FROM6 = IP(src="198.51.100.1", dst="10.1.2.3"), IPv6(src="2001:db8::1", dst="fd00::1:2")


def error(packet: IP | IPv6) -> bytes:
    return bytes(packet / (b"x" * 100))


@pytest.mark.parametrize(
    ("kind", "mtu"),
    [
        (ICMP(type=3, code=4, nexthopmtu=1300), 1300),
        (ICMP(type=3, code=4), 0),
        (ICMP(type=3, code=1, nexthopmtu=1300), None),
        (ICMP(type=5, gw="10.1.2.1"), None),
        (ICMP(type=11), None),
        (ICMP(type=12), None),
    ],
)
@pytest.mark.parametrize("options", [b"", b"\x01" * 8])
def test_what_a_router_quotes(kind: ICMP, mtu: int | None, options: bytes) -> None:
    out = OUT4.copy()
    out.options = options
    packet = error(IP(src=FROM4.src, dst=FROM4.dst, options=options) / kind / out)
    found = read_error(memoryview(packet))
    assert found is not None and is_icmp(packet) and checksum_is_right(packet, found)
    assert (found.key, found.seq, found.mtu) == (KEY4, 0x01020304, mtu)


@pytest.mark.parametrize(
    ("kind", "mtu"),
    [
        (ICMPv6PacketTooBig(mtu=1300), 1300),
        (ICMPv6PacketTooBig(mtu=70000), 70000),
        (ICMPv6DestUnreach(code=3), None),
        (ICMPv6TimeExceeded(), None),
        (ICMPv6ParamProblem(), None),
    ],
)
def test_what_a_router_quotes_of_ipv6(kind: Packet, mtu: int | None) -> None:
    packet = error(FROM6 / kind / OUT6)
    found = read_error(memoryview(packet))
    assert found is not None and is_icmp(packet) and checksum_is_right(packet, found)
    assert (found.key, found.seq, found.mtu) == (KEY6, 0x01020304, mtu)


@pytest.mark.parametrize(
    "packet",
    [
        error(FROM4 / ICMP(type=8)),
        error(FROM4 / ICMP(type=3, code=4) / IP(src="10.1.2.3", dst="192.0.2.77") / UDP(sport=7331, dport=40000)),
        error(FROM4 / ICMP(type=3) / IP(src="10.1.2.3", dst="192.0.2.77", frag=100) / TCP()),
        error(FROM4 / ICMP(type=3) / OUT6),
        bytes(FROM4 / ICMP(type=3) / OUT4)[: 20 + 8 + 20 + 7],
        bytes(FROM4 / ICMP(type=3)),
        error(FROM6 / ICMPv6EchoRequest()),
        error(FROM6 / ICMPv6PacketTooBig() / IPv6(src="fd00::1:2", dst="2001:db8::77") / UDP()),
        error(FROM6 / ICMPv6PacketTooBig() / IPv6(src="fd00::1:2", dst="2001:db8::77") / IPv6ExtHdrFragment() / TCP()),
        error(FROM6 / ICMPv6PacketTooBig() / OUT4),
        bytes(FROM6 / ICMPv6PacketTooBig() / OUT6)[: 40 + 8 + 40 + 7],
    ],
)
def test_what_quotes_no_segment(packet: bytes) -> None:
    assert is_icmp(packet) and read_error(memoryview(packet)) is None


def test_other_packets_are_no_icmp() -> None:
    assert not is_icmp(bytes(OUT4)) and not is_icmp(bytes(OUT6))
    assert not is_icmp(bytes(IPv6(src="fd00::1", dst="fd00::2", nh=1) / b"x")), "ICMP for IPv4 in IPv6"


@pytest.mark.parametrize("length", [0, 1, 8, 99])
@pytest.mark.parametrize("mtu", [None, 1278])
def test_a_rewritten_error(length: int, mtu: int | None) -> None:
    for base, changed in ((FROM4, ICMP), (FROM6, ICMPv6PacketTooBig)):
        kind = ICMP(type=3, code=4, nexthopmtu=1300) if changed is ICMP else ICMPv6PacketTooBig(mtu=1300)
        out = OUT4 if changed is ICMP else OUT6
        packet = bytes(base / kind / out / Random(1).randbytes(length))
        found = read_error(packet)
        assert found is not None
        read = type(base)(rewrite(memoryview(packet), found, 0xFFFFFFFE, mtu))
        named = read[ICMP].nexthopmtu if changed is ICMP else read[ICMPv6PacketTooBig].mtu
        assert (named, read[TCPerror].seq) == (mtu or 1300, 0xFFFFFFFE)
        fresh = read.copy()
        (fresh[ICMP] if changed is ICMP else fresh[ICMPv6PacketTooBig]).delfieldval(
            "chksum" if changed is ICMP else "cksum"
        )
        assert bytes(type(base)(bytes(fresh))) == bytes(read), "the checksum is what scapy would write"
        assert len(bytes(read)) == len(packet)


@pytest.mark.parametrize("at", [-1, 36, 60])
def test_a_wrong_checksum(at: int) -> None:
    packet = bytearray(error(FROM4 / ICMP(type=3, code=4, nexthopmtu=1300) / OUT4))
    found = read_error(bytes(packet))
    assert found is not None
    packet[at] ^= 1
    assert not checksum_is_right(bytes(packet), found)
