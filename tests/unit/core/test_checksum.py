"""Checksums against RFC 1071 written down as it reads: 16-bit words, end-around carry, complement."""

from __future__ import annotations

from random import Random
from struct import pack, pack_into, unpack

import pytest

from mcencrypt.core.checksum import SMALL, ipv4_header_checksum, tcp_checksum_is_right, write_tcp_checksum


def rfc_1071(data: bytes) -> int:
    if len(data) % 2:
        data += b"\0"
    total = 0
    for (word,) in (unpack("!H", data[at : at + 2]) for at in range(0, len(data), 2)):
        total += word
        if total > 0xFFFF:
            total = (total & 0xFFFF) + 1
    return total ^ 0xFFFF


def make(dice: Random, ipv6: bool, length: int, ip_options: int = 0) -> tuple[bytearray, int]:
    """A packet of `length` bytes with wrong checksums, and where its TCP header starts."""
    tcp_at = 40 if ipv6 else 20 + ip_options
    packet = bytearray(dice.randbytes(length))
    if ipv6:
        pack_into("!IHBB", packet, 0, 0x60000000, length - 40, 6, 64)
    else:
        pack_into("!BBHHHBB", packet, 0, 0x40 | tcp_at // 4, 0, length, 1, 0x4000, 64, 6)
    packet[tcp_at + 12] = 5 << 4
    return packet, tcp_at


def expected(packet: bytes, tcp_at: int, ipv6: bool) -> int:
    tcp = bytearray(packet[tcp_at:])
    tcp[16:18] = b"\0\0"
    if ipv6:
        pseudo = bytes(packet[8:40]) + pack("!II", len(tcp), 6)
    else:
        pseudo = bytes(packet[12:20]) + pack("!BBH", 0, 6, len(tcp))
    return rfc_1071(pseudo + bytes(tcp))


#: Both sides of what is summed in Python, odd and even, and as large as packets get.
LENGTHS = (60, 61, 62, 63, 99, 100, *range(SMALL - 3, SMALL + 5), 1499, 1500, 9001, 65530, 65531)
LENGTHS_WITH_OPTIONS = (80, 81, 100, 101, *range(SMALL - 2, SMALL + 4), 1501, 65531)
SHAPES = [(ipv6, 0, length) for ipv6 in (False, True) for length in LENGTHS] + [
    (False, options, length) for options in (4, 20, 40) for length in LENGTHS_WITH_OPTIONS
]


@pytest.mark.parametrize(("ipv6", "options", "length"), SHAPES)
@pytest.mark.parametrize("kind", [bytearray, memoryview])
def test_a_written_checksum_is_the_one_of_the_rfc(kind: type, ipv6: bool, options: int, length: int) -> None:
    packet, tcp_at = make(Random(length * 8 + options + ipv6), ipv6, length, options)
    right = expected(packet, tcp_at, ipv6)
    before = bytes(packet)
    write_tcp_checksum(packet if kind is bytearray else memoryview(packet), tcp_at, ipv6)
    assert packet[tcp_at + 16 : tcp_at + 18] == right.to_bytes(2, "big")
    packet[tcp_at + 16 : tcp_at + 18] = before[tcp_at + 16 : tcp_at + 18]
    assert packet == before, "nothing but the field may change"


@pytest.mark.parametrize(("ipv6", "options", "length"), SHAPES)
def test_a_received_checksum_is_judged(ipv6: bool, options: int, length: int) -> None:
    packet, tcp_at = make(Random(length * 8 + options + ipv6), ipv6, length, options)
    right = expected(packet, tcp_at, ipv6)
    for wrong in (right ^ 1, right ^ 0x8000, right + 1 & 0xFFFF, right << 8 & 0xFF00 | right >> 8):
        if wrong != right:
            packet[tcp_at + 16 : tcp_at + 18] = wrong.to_bytes(2, "big")
            assert not tcp_checksum_is_right(memoryview(packet), tcp_at, ipv6)
    packet[tcp_at + 16 : tcp_at + 18] = right.to_bytes(2, "big")
    assert tcp_checksum_is_right(memoryview(packet), tcp_at, ipv6)


@pytest.mark.parametrize(
    ("ipv6", "options", "length"),
    [
        (False, 0, 40),
        (False, 0, 75),
        (False, 8, 90),
        (True, 0, 60),
        (True, 0, 97),
        (False, 0, SMALL + 3),
        (True, 0, SMALL + 2),
    ],
)
def test_any_flipped_byte_is_noticed(ipv6: bool, options: int, length: int) -> None:
    dice = Random(length)
    packet, tcp_at = make(dice, ipv6, length, options)
    write_tcp_checksum(packet, tcp_at, ipv6)
    addresses = range(8, 40) if ipv6 else range(12, 20)
    for at in (*addresses, *range(tcp_at, length)):
        for flip in (1, 0x80, 0xFF, dice.randrange(1, 256)):
            damaged = bytearray(packet)
            damaged[at] ^= flip
            assert not tcp_checksum_is_right(damaged, tcp_at, ipv6), f"byte {at} ^ {flip:#x}"
    assert tcp_checksum_is_right(packet, tcp_at, ipv6)


@pytest.mark.parametrize("ipv6", [False, True])
@pytest.mark.parametrize("length", [80, SMALL + 40])
def test_a_sum_of_all_ones_is_written_as_zero(ipv6: bool, length: int) -> None:
    """One's complement has two zeros; TCP sends the one that the complement gives (RFC 9293 section 3.1)."""
    packet, tcp_at = make(Random(length), ipv6, length)
    packet[-2:] = b"\0\0"
    packet[-2:] = expected(packet, tcp_at, ipv6).to_bytes(2, "big")
    assert expected(packet, tcp_at, ipv6) == 0
    write_tcp_checksum(packet, tcp_at, ipv6)
    assert packet[tcp_at + 16 : tcp_at + 18] == b"\0\0"
    assert tcp_checksum_is_right(packet, tcp_at, ipv6)


@pytest.mark.parametrize("options", range(0, 44, 4))
def test_the_header_checksum_of_ipv4(options: int) -> None:
    for seed in range(20):
        packet, tcp_at = make(Random(seed), False, 120, options)
        blank = packet[:10] + b"\0\0" + packet[12:tcp_at]
        right = rfc_1071(bytes(blank))
        assert ipv4_header_checksum(packet, tcp_at) == right, "whatever the field held before"
        assert ipv4_header_checksum(memoryview(blank + bytes(60)), tcp_at) == right
        packet[10:12] = right.to_bytes(2, "big")
        assert rfc_1071(bytes(packet[:tcp_at])) == 0
        assert ipv4_header_checksum(bytes(packet), tcp_at) == right
