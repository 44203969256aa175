"""The lab's own view of packets, against scapy's."""

import random

import pytest
from scapy.layers.inet import IP, TCP, UDP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether

from lab.behaviours import flip, join, split
from lab.packets import locate, parse

ETHERNET = Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")


def frames():
    dice = random.Random(5)
    for size in (0, 1, 2, 7, 1399, 1400, 64000):
        for ip in (
            IP(src="10.0.0.1", dst="10.0.0.2", options=[]),
            IPv6(src="fd00::1", dst="fd00::2"),
            IP(src="10.0.0.1", dst="10.0.0.2", options=b"\x01\x01\x01\x00"),
        ):
            tcp = TCP(
                sport=dice.randrange(1, 65536),
                dport=7331,
                seq=dice.getrandbits(32),
                ack=dice.getrandbits(32),
                flags="PA",
                window=dice.randrange(65536),
                options=[("Timestamp", (1, 2)), ("NOP", None)],
            )
            yield bytes(ETHERNET / ip / tcp / dice.randbytes(size))


@pytest.mark.parametrize("frame", list(frames()))
def test_a_frame_that_is_parsed_and_packed_is_what_scapy_wrote(frame):
    segment = parse(frame)
    assert segment.packed() == frame
    assert segment.payload == bytes(Ether(frame)[TCP].payload)
    assert segment.sequence == Ether(frame)[TCP].seq


@pytest.mark.parametrize("frame", list(frames()))
def test_packing_puts_wrong_checksums_and_lengths_right(frame):
    segment = parse(frame)
    changed = segment.with_payload(segment.sequence + 3, segment.payload[3:], segment.flags).packed()
    built = Ether(frame)
    built[TCP].seq = (built[TCP].seq + 3) & 0xFFFFFFFF
    built[TCP].remove_payload()
    built = built / segment.payload[3:]
    for layer, names in ((IP, ("len", "chksum")), (IPv6, ("plen",)), (TCP, ("chksum",))):
        if layer in built:
            for name in names:
                delattr(built[layer], name)
    assert changed == bytes(built)


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        bytes(60),
        bytes(ETHERNET / IP(dst="10.0.0.1") / UDP() / bytes(40)),
        bytes(ETHERNET / IP(dst="10.0.0.1", frag=2) / TCP() / bytes(40)),
        bytes(ETHERNET / IP(dst="10.0.0.1", flags="MF") / TCP() / bytes(40)),
        bytes(ETHERNET / IP(dst="10.0.0.1") / TCP() / bytes(40))[:-1],
        bytes(ETHERNET / IPv6(dst="fd00::1") / UDP() / bytes(40)),
    ],
)
def test_what_is_no_whole_tcp_segment_is_none(frame):
    assert locate(frame) is None
    assert parse(frame) is None


def test_padding_behind_a_short_packet_is_no_payload():
    frame = bytes(ETHERNET / IP(dst="10.0.0.1") / TCP() / b"abc") + bytes(17)
    assert parse(frame).payload == b"abc"


def test_pieces_of_a_segment_join_to_the_segment_again():
    whole = parse(bytes(ETHERNET / IP(dst="10.0.0.1") / TCP(seq=2**32 - 5, flags="FPA") / bytes(range(100))))
    first, second, third = split(whole, [10, 1, 89])
    assert (second.sequence, third.sequence) == (5, 6)
    assert [piece.flags for piece in (first, second, third)] == [0x10, 0x10, 0x19]
    assert join(join(first, second), third) == whole
    assert join(first, third) is None
    assert join(third, whole) is None


def test_flipping_a_bit_twice_gives_the_same_bytes():
    assert flip(b"\0\0", 9) == b"\0\x02"
    assert flip(flip(b"abc", 17), 17) == b"abc"
