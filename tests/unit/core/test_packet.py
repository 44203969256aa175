"""Headers of the fast path, against scapy: the same fields give the same bytes and the same checksums."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.inet import ICMP, IP, TCP, UDP
from scapy.layers.inet6 import (
    IPv6,
    IPv6ExtHdrDestOpt,
    IPv6ExtHdrFragment,
    IPv6ExtHdrHopByHop,
    IPv6ExtHdrRouting,
)
from scapy.packet import Packet

from mcencrypt.core.addresses import reversed_key
from mcencrypt.core.checksum import SMALL
from mcencrypt.core.packet import (
    ACK,
    FIN,
    PSH,
    RST,
    SYN,
    URG,
    VERDICT_LIMIT,
    Segment,
    Unusable,
    bare,
    rebuild,
)

#: Payload lengths: none, odd, on both sides of what is summed in Python, and batches.
LENGTHS = (0, 1, 2, 3, 31, 32, 139, SMALL - 41, SMALL - 40, SMALL - 39, SMALL - 61, SMALL - 60, 1399, 1448, 9001)
LARGE = (64676, VERDICT_LIMIT - 120)
IP_OPTIONS = (b"", b"\x01\x01\x01\x00", b"\x94\x04\x00\x00", b"\x44\x0c\x05\x00" + bytes(8), b"\x01" * 40)
TCP_OPTIONS = (
    [],
    [("NOP", None), ("NOP", None), ("Timestamp", (12345, 67890))],
    [("MSS", 1460), ("SAckOK", b""), ("Timestamp", (7, 0)), ("NOP", None), ("WScale", 7)],
    [("NOP", None), ("NOP", None), ("SAck", (1000, 2000))],
    [("NOP", None), ("NOP", None), ("Timestamp", (1, 2)), ("NOP", None), ("NOP", None), ("SAck", (1, 2, 3, 4, 5, 6))],
    [("WScale", 3)],  # padded by one byte
)


def ip_header(dice: Random, version: int) -> Packet:
    if version == 6:
        return IPv6(
            src="2001:db8::" + format(dice.randrange(1, 65536), "x"),
            dst="fd00:1:2:3::" + format(dice.randrange(1, 65536), "x"),
            tc=dice.randrange(256),
            fl=dice.randrange(1 << 20),
            hlim=dice.randrange(1, 256),
        )
    return IP(
        src=".".join(str(dice.randrange(1, 255)) for _ in range(4)),
        dst=".".join(str(dice.randrange(1, 255)) for _ in range(4)),
        tos=dice.randrange(256),
        id=dice.randrange(65536),
        flags=dice.choice((0, "DF")),
        ttl=dice.randrange(1, 256),
        options=dice.choice(IP_OPTIONS),
    )


def tcp_header(dice: Random) -> TCP:
    return TCP(
        sport=dice.randrange(1, 65536),
        dport=dice.randrange(1, 65536),
        seq=dice.getrandbits(32),
        ack=dice.getrandbits(32),
        reserved=dice.randrange(8),
        flags=dice.randrange(512) | URG,  # NS, the ninth flag, included
        window=dice.randrange(65536),
        urgptr=dice.randrange(1, 65536),
        options=dice.choice(TCP_OPTIONS),
    )


def variants() -> list[tuple[int, int, int]]:
    return [(seed, version, length) for seed, length in enumerate(LENGTHS * 3 + LARGE) for version in (4, 6)]


def held(dice: Random, raw: bytes) -> bytes | memoryview:
    """The packet as one of the kinds of buffer in which it can come."""
    return dice.choice((bytes(raw), memoryview(raw), memoryview(bytearray(raw))))


@pytest.mark.parametrize(("seed", "version", "length"), variants())
def test_a_rebuilt_packet_is_what_scapy_builds_from_the_same_fields(seed: int, version: int, length: int) -> None:
    dice = Random(seed << 4 | version)
    ip, tcp = ip_header(dice, version), tcp_header(dice)
    raw = bytes(ip / tcp / dice.randbytes(dice.choice(LENGTHS)))
    segment = Segment(held(dice, raw))

    payload = dice.randbytes(length)
    cut = dice.randrange(length + 1)
    seq, ack = dice.getrandbits(40), dice.getrandbits(40)  # offsets are longer than sequence numbers
    expected = tcp.copy()
    expected.seq, expected.ack, expected.urgptr = seq % (1 << 32), ack % (1 << 32), 0
    flags = window = options = None
    if dice.randrange(2):
        flags = dice.randrange(256)
        expected.flags = int(tcp.flags) & 0x100 | flags
    expected.flags = int(expected.flags) & ~URG
    if dice.randrange(2):
        expected.window = window = dice.randrange(65536)
    if dice.randrange(2):
        expected.options = dice.choice(TCP_OPTIONS)
        options = bytes(TCP(options=expected.options))[20:]

    packet = rebuild(
        segment, seq, ack, payload[:cut], memoryview(payload)[cut:], flags=flags, window=window, options=options
    )
    assert packet == bytes(ip / expected / payload)
    assert isinstance(packet, bytes)


def test_the_original_is_left_as_it_was() -> None:
    raw = bytearray(bytes(IP(src="10.0.0.1", dst="10.0.0.2") / TCP(flags="APU", urgptr=9) / b"as it was"))
    before = bytes(raw)
    rebuild(Segment(memoryview(raw)), 1, 2, b"other", flags=SYN, window=1, options=b"\x01" * 4)
    assert raw == before


@pytest.mark.parametrize(
    ("old", "step", "new"), [(7, 0, 7), (7, 3, 10), (0, 0, 0), (0xFFFF, 1, 1), (0xFFFE, 1, 0xFFFF), (0xFFFF, 2, 1)]
)
def test_the_identification_steps_and_never_becomes_zero(old: int, step: int, new: int) -> None:
    ip, tcp = IP(src="10.0.0.1", dst="10.0.0.2", id=old, flags="DF"), TCP(seq=5, ack=6, flags="A")
    packet = rebuild(Segment(bytes(ip / tcp / b"data")), 5, 6, b"data", identification_step=step)
    ip.id = new
    assert packet == bytes(ip / tcp / b"data")


def test_an_ipv6_packet_has_no_identification_to_step() -> None:
    raw = bytes(IPv6(src="fd00::1", dst="fd00::2", fl=0x12345) / TCP(seq=5, ack=6, flags="A") / b"data")
    assert rebuild(Segment(raw), 5, 6, b"data", identification_step=4) == raw


@pytest.mark.parametrize("seed", range(40))
def test_a_bare_segment_is_what_scapy_builds(seed: int) -> None:
    dice = Random(seed)
    seq, ack = dice.getrandbits(36), dice.getrandbits(36)
    flags = dice.choice((RST, RST | ACK, ACK, FIN | ACK))
    sport, dport = dice.randrange(1, 65536), dice.randrange(1, 65536)
    window = dice.choice((0, 1, 65535))
    tcp = TCP(
        sport=sport, dport=dport, seq=seq % (1 << 32), ack=ack % (1 << 32), flags=flags, window=window, options=[]
    )
    if seed % 2:
        address = bytes(dice.randbytes(16)), bytes(dice.randbytes(16))
        like = IPv6(dst="::", src="::")
        like.src = ":".join(address[0].hex()[at : at + 4] for at in range(0, 32, 4))
        like.dst = ":".join(address[1].hex()[at : at + 4] for at in range(0, 32, 4))
        like.hlim = 64
    else:
        address = dice.randbytes(4), dice.randbytes(4)
        like = IP(src=".".join(map(str, address[0])), dst=".".join(map(str, address[1])), id=1, flags="DF", ttl=64)
    key = address[0] + address[1] + sport.to_bytes(2, "big") + dport.to_bytes(2, "big")
    packet = bare(key, seq, ack, flags, window)
    assert packet == bytes(like / tcp)
    assert Segment(packet).source_first == key


@pytest.mark.parametrize(("seed", "version", "length"), variants()[::3])
def test_the_fields_are_read_as_scapy_reads_them(seed: int, version: int, length: int) -> None:
    dice = Random(~(seed << 4 | version) & 0xFFFF)
    raw = bytes(ip_header(dice, version) / tcp_header(dice) / dice.randbytes(length))
    segment = Segment(held(dice, raw))
    read = (IPv6 if version == 6 else IP)(raw)
    tcp = read[TCP]
    assert segment.ipv6 == (version == 6)
    assert (segment.seq, segment.ack, segment.window) == (tcp.seq, tcp.ack, tcp.window)
    assert segment.flags == int(tcp.flags) & 0xFF
    assert bytes(segment.payload()) == bytes(tcp.payload)
    assert segment.tcp_at == len(raw) - len(tcp)
    assert bytes(segment.options()) == raw[segment.tcp_at + 20 : segment.tcp_at + tcp.dataofs * 4]
    assert segment.end == len(raw)
    if version == 6:
        addresses = raw[8:24] + raw[24:40]
    else:
        addresses = bytes(map(int, read.src.split("."))) + bytes(map(int, read.dst.split(".")))
    ports = tcp.sport.to_bytes(2, "big"), tcp.dport.to_bytes(2, "big")
    assert segment.source_first == addresses + ports[0] + ports[1]
    half = len(addresses) // 2
    assert reversed_key(segment.source_first) == addresses[half:] + addresses[:half] + ports[1] + ports[0]


@given(st.one_of(st.binary(min_size=12, max_size=12), st.binary(min_size=36, max_size=36)))
def test_a_key_reversed_twice_is_itself(key: bytes) -> None:
    assert reversed_key(reversed_key(key)) == key
    assert sorted(reversed_key(key)) == sorted(key)


def test_the_answer_to_a_packet_has_its_key_reversed() -> None:
    for request, answer in (
        (IP(src="10.0.0.1", dst="10.0.0.2"), IP(src="10.0.0.2", dst="10.0.0.1", options=b"\x01\x01\x01\x00")),
        (IPv6(src="fd00::1", dst="fd00::2"), IPv6(src="fd00::2", dst="fd00::1")),
    ):
        there = Segment(bytes(request / TCP(sport=40000, dport=7331))).source_first
        back = Segment(bytes(answer / TCP(sport=7331, dport=40000))).source_first
        assert reversed_key(there) == back != there


# -- what is refused


def reason(raw: bytes) -> str:
    with pytest.raises(Unusable) as caught:
        Segment(raw)
    return str(caught.value)


V4 = IP(src="10.0.0.1", dst="10.0.0.2")
V6 = IPv6(src="fd00::1", dst="fd00::2")
SEGMENT = TCP(sport=1, dport=2, options=[("Timestamp", (1, 2))]) / b"payload of some length"


@pytest.mark.parametrize("ip", [V4, V6, IP(src="10.0.0.1", dst="10.0.0.2", options=b"\x01" * 8)])
def test_a_packet_that_was_cut_or_has_a_tail_is_refused(ip: Packet) -> None:
    raw = bytes(ip / SEGMENT)
    Segment(raw)
    for length in range(len(raw)):
        assert reason(raw[:length]) == "truncated"
    assert reason(raw + b"\0") == "malformed"


@pytest.mark.parametrize(
    ("packet", "expected"),
    [
        (IP(src="10.0.0.1", dst="10.0.0.2", flags="MF") / SEGMENT, "fragment"),
        (IP(src="10.0.0.1", dst="10.0.0.2", flags="MF", frag=1) / SEGMENT, "fragment"),
        (IP(src="10.0.0.1", dst="10.0.0.2", frag=1, proto=6) / bytes(40), "fragment"),
        (IP(src="10.0.0.1", dst="10.0.0.2", frag=0x1000, proto=6) / bytes(40), "fragment"),
        (V4 / UDP() / bytes(40), "not-tcp"),
        (V4 / ICMP() / bytes(40), "not-tcp"),
        (V4 / IP() / SEGMENT, "not-tcp"),
        (V6 / IPv6ExtHdrFragment(m=1) / SEGMENT, "fragment"),
        (V6 / IPv6ExtHdrFragment(offset=8) / SEGMENT, "fragment"),
        (V6 / IPv6ExtHdrFragment() / SEGMENT, "fragment"),
        (V6 / IPv6ExtHdrHopByHop() / SEGMENT, "extension-header"),
        (V6 / IPv6ExtHdrDestOpt() / SEGMENT, "extension-header"),
        (V6 / IPv6ExtHdrRouting(addresses=["fd00::3"]) / SEGMENT, "extension-header"),
        (V6 / UDP() / bytes(40), "extension-header"),
    ],
)
def test_what_is_no_plain_segment_is_refused(packet: Packet, expected: str) -> None:
    assert reason(bytes(packet)) == expected


def patched(raw: bytes, at: int, value: int) -> bytes:
    return raw[:at] + bytes((value,)) + raw[at + 1 :]


def test_headers_with_impossible_lengths_are_refused() -> None:
    four, six = bytes(V4 / SEGMENT), bytes(V6 / SEGMENT)
    for words in range(5):  # shorter than any header
        assert reason(patched(four, 0, 0x40 | words)) == "malformed"
        assert reason(patched(four, 32, words << 4)) == "malformed"
        assert reason(patched(six, 52, words << 4)) == "malformed"
    bare_four, bare_six = bytes(V4 / TCP()), bytes(V6 / TCP())
    for words in range(6, 16):  # longer than the packet
        assert reason(patched(bare_four, 0, 0x40 | words)) == "malformed"
        assert reason(patched(bare_four, 32, words << 4)) == "malformed"
        assert reason(patched(bare_six, 52, words << 4)) == "malformed"
    for version in (0, 5, 7, 15):
        assert reason(patched(four, 0, version << 4 | 5)) == "not-ip"


def test_the_reserved_and_do_not_fragment_bits_are_no_fragments() -> None:
    for flags in (0, "DF", "evil", "DF+evil"):
        assert not Segment(bytes(IP(src="10.0.0.1", dst="10.0.0.2", flags=flags) / SEGMENT)).ipv6


@given(st.binary(max_size=120), st.sampled_from([b"", b"\x45", b"\x4f", b"\x60"]))
def test_random_bytes_are_read_or_refused_and_nothing_else(noise: bytes, start: bytes) -> None:
    raw = start + noise
    try:
        segment = Segment(raw)
    except Unusable as refused:
        assert str(refused) in {"truncated", "malformed", "fragment", "extension-header", "not-tcp", "not-ip"}
    else:
        assert 20 <= segment.payload_at - segment.tcp_at <= 60
        assert segment.payload_at <= segment.end == len(raw)


@given(st.integers(0, 255), st.integers(20, 60), st.binary(min_size=60, max_size=60))
def test_any_one_byte_of_a_header_may_be_wrong(value: int, at: int, tail: bytes) -> None:
    """Whatever a byte of the TCP header says, what is read stays inside the packet."""
    raw = patched(bytes(V4 / TCP(flags=PSH | ACK)) + tail, at, value)
    raw = raw[:2] + len(raw).to_bytes(2, "big") + raw[4:]
    try:
        segment = Segment(raw)
    except Unusable as refused:
        assert str(refused) == "malformed"
        assert at == 32
    else:
        assert len(segment.options()) + len(segment.payload()) == len(raw) - 40
