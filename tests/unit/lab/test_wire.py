"""The search in captures, on files made here."""

import pytest
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6
from scapy.layers.l2 import Ether
from scapy.utils import wrpcap

from lab import LabError, Recording

MARKER = b"INVOICE-4711"
V4 = IP(src="10.0.0.1", dst="10.0.0.2")


def recording(tmp_path, segments, ip=V4):
    path = tmp_path / "wire.pcap"
    wrpcap(
        str(path),
        [
            Ether(src="02:00:00:00:00:01", dst="02:00:00:00:00:02")
            / ip
            / TCP(sport=1000, dport=7331, seq=sequence % 2**32, flags="PA")
            / payload
            for sequence, payload in segments
        ],
    )
    return Recording(path)


def count(found):
    return found.search([MARKER])[MARKER]


@pytest.mark.parametrize("ip", [IP(src="10.0.0.1", dst="10.0.0.2"), IPv6(src="fd00::1", dst="fd00::2")])
@pytest.mark.parametrize("cut", range(1, len(MARKER)))
def test_a_marker_across_two_segments_is_found_once(tmp_path, cut, ip):
    start = 2**32 - 7
    assert (
        count(recording(tmp_path, [(start, b"abc" + MARKER[:cut]), (start + 3 + cut, MARKER[cut:] + b"xyz")], ip)) == 1
    )


def test_a_marker_in_single_bytes_is_found_in_any_order_of_arrival(tmp_path):
    pieces = [(100 + place, MARKER[place : place + 1]) for place in range(len(MARKER))]
    assert count(recording(tmp_path, pieces[::2] + pieces[1::2])) == 1


def test_every_copy_in_a_frame_counts_and_retransmissions_too(tmp_path):
    assert count(recording(tmp_path, [(1, MARKER + b"-" + MARKER), (1, MARKER + b"-" + MARKER)])) == 4


def test_a_gap_joins_nothing(tmp_path):
    assert count(recording(tmp_path, [(1, MARKER[:5]), (7, MARKER[5:])])) == 0


def test_segments_sent_again_in_another_cut_join(tmp_path):
    segments = [(1, b"12345" + MARKER[:4]), (6, MARKER[:4] + MARKER[4:6]), (12, MARKER[6:])]
    assert count(recording(tmp_path, segments)) == 1


def test_segments_say_who_sent_what(tmp_path):
    found = list(recording(tmp_path, [(1, b"hello"), (6, b"")], IPv6(src="fd00::1", dst="fd00::2")).segments(7331))
    assert [segment.payload for segment in found] == [b"hello", b""]
    assert found[0].flow == ("fd00::1", 1000, "fd00::2", 7331)
    assert found[0].sequence == 1
    assert not list(recording(tmp_path, [(1, b"hello")]).segments(7332))


def test_a_file_that_is_no_capture_is_refused(tmp_path):
    (tmp_path / "x").write_bytes(b"x" * 100)
    with pytest.raises(LabError, match="not a pcap file"):
        Recording(tmp_path / "x").search([MARKER])
