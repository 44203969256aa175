"""One connection in both spaces: SACK blocks, windows, paths that shrink, and what is told of tampering."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from scapy.layers.inet import ICMP, IP, TCP

from mcencrypt.core.packet import Segment
from mcencrypt.core.record import OVERHEAD
from mcencrypt.core.verdict import DROP
from tests.helpers.halves import ORIGIN, OURS, SEGMENT, THEIRS, Half, ends, sack_of


def test_sack_blocks_cross_both_ways() -> None:
    near, far = ends()
    sent = [near.send(100 * number, bytes([number]) * 100)[0] for number in range(5)]
    for number in (0, 2, 3):
        far.take(sent[number])
    (wire,) = far.send(0, ack=100, sack=[(200, 400)])
    size = 100 + OVERHEAD
    assert sack_of(wire, OURS) == [(ORIGIN + 2 * size, ORIGIN + 4 * size)]
    assert wire[TCP].ack == OURS + 1 + ORIGIN + size
    got = near.take(wire)
    assert sack_of(got, OURS) == [(200, 400)] and got[TCP].ack == OURS + 1 + 100
    assert len(bytes(got)) == len(bytes(wire))


def test_sack_blocks_shrink_to_whole_records_and_vanish() -> None:
    near, far = ends()
    sent = [near.send(100 * number, bytes([number]) * 100)[0] for number in range(5)]
    for number in (0, 2, 3):
        far.take(sent[number])
    (wire,) = far.send(0, ack=100, sack=[(250, 400), (210, 290)])
    size = 100 + OVERHEAD
    assert sack_of(wire, OURS) == [(ORIGIN + 3 * size, ORIGIN + 4 * size)]
    base = OURS + 1 + ORIGIN
    raw = far.packet(wire[TCP].seq, base + size, "A", b"", 60000,
                     [("SAck", (base + 2 * size + 1, base + 3 * size - 1))])  # fmt: skip
    assert sack_of(near.take(IP(raw)), OURS) == []


def test_a_duplicate_is_told_of_below_the_acknowledgement() -> None:
    near, far = ends()
    sent = [near.send(100 * number, bytes([number]) * 100)[0] for number in range(3)]
    for packet in (*sent, sent[0]):
        far.take(packet)
    near.take(far.send(0, ack=300)[0])
    (wire,) = far.send(0, ack=300, sack=[(0, 100)])
    assert sack_of(near.take(wire), OURS) == [(0, 100)]
    # Only the first block may lie there.
    (wire,) = far.send(0, ack=300, sack=[(0, 100), (100, 200)])
    assert sack_of(near.take(wire), OURS) == [(0, 100)]


def test_a_sack_of_what_was_never_sent_vanishes() -> None:
    near, far = ends()
    near.send(0, b"x" * 100)
    base = OURS + 1 + ORIGIN
    raw = far.packet(THEIRS + 1 + ORIGIN, base, "A", b"", 60000, [("SAck", (base + 200, base + 300))])
    assert sack_of(near.take(IP(raw)), OURS) == []


def held_batch(near: Half, at: int, count: int, flags: str = "A") -> list[Any]:
    """Our socket sends a GSO batch of `count` full segments."""
    return near.send(at, bytes([count]) * (SEGMENT * count), flags, gso=True)


def test_the_end_of_a_small_batch_waits_for_the_next_one() -> None:
    near, far = ends()
    sizes, got = [], b""
    for number in range(40):
        (packet,) = held_batch(near, number * 2 * SEGMENT, 2, "PA" if number == 39 else "A")
        sizes.append(len(packet[TCP].payload))
        got += bytes(far.take(packet)[TCP].payload)
    assert all(size % SEGMENT == 0 for size in sizes[:-1]), "full packets only, until the socket pushes"
    assert got == b"\2" * (80 * SEGMENT)


def test_what_is_held_leaves_with_whatever_asks_for_it() -> None:
    for ask in ("repeat", "finish", "push"):
        near, far = ends()
        (packet,) = held_batch(near, 0, 2)
        got = bytes(far.take(packet)[TCP].payload)
        assert len(got) == 2 * (SEGMENT - OVERHEAD)
        if ask == "repeat":
            packets = near.send(SEGMENT, b"\2" * SEGMENT)
        elif ask == "finish":
            packets = near.send(2 * SEGMENT, b"", "FA")
        else:
            packets = near.send(2 * SEGMENT, b"\2", "PA")
        for packet in packets:
            answer = far.take(packet)
            assert answer is not DROP
            at = answer[TCP].seq - OURS - 1
            got = got[:at] + bytes(answer[TCP].payload)
        assert got == b"\2" * (2 * SEGMENT + (ask == "push"))
        assert "F" not in str(answer[TCP].flags) or ask == "finish"


def test_a_batch_whose_segments_are_not_what_we_think_is_not_held() -> None:
    near, far = ends()
    (packet,) = near.send(0, b"x" * (SEGMENT + 1), gso=True)
    assert len(packet[TCP].payload) > SEGMENT + 1, "a GSO packet must be longer than its segments are to be"
    assert bytes(far.take(packet)[TCP].payload) == b"x" * (SEGMENT + 1)


def test_a_path_that_shrank_gets_slices_and_the_socket_is_told() -> None:
    near, far = ends()
    text = Random(3).randbytes(1400)
    near.mtu = 1300
    parts = near.send(0, text)
    assert len(parts) == 2 and all(len(bytes(part)) <= 1300 for part in parts)
    (told,) = near.drain("socket")
    assert told[ICMP].type == 3 and told[ICMP].code == 4 and told[ICMP].nexthopmtu == 1300 - OVERHEAD
    assert (told[IP].src, told[IP].dst) == ("10.0.0.2", "10.0.0.1")
    quoted = told[ICMP].payload
    assert (quoted.sport, quoted.dport, quoted.seq) == (40000, 8571, OURS + 1)
    near.mtu -= OVERHEAD
    near.send(1400, text)
    assert near.drain("socket") == [], "told once"
    early = far.take(parts[1])
    assert early is DROP or not bytes(early[TCP].payload)
    got = far.take(parts[0])
    assert bytes(got[TCP].payload) == text and got[TCP].seq == OURS + 1


def leaves(near: Half, at: int, payload: bytes, gso: bool = False) -> tuple[list[int], list[int]]:
    """Our socket sends; lengths of the packets that come back from the queue, and of those that are injected."""
    verdict = near.flow.from_socket(Segment(near.packet(OURS + 1 + at, THEIRS + 1, "A", payload, 60000, [])), gso)
    return [len(verdict)] if isinstance(verdict, bytes) else [], [len(packet) for packet in near.drain("network")]


def test_what_is_longer_than_the_kernel_holds_the_path_for_is_injected_up_to_what_it_takes() -> None:
    """ip_finish_output would drop it: the kernel was told less than the path takes."""
    near, _ = ends()
    near.mtu = 1300
    leaves(near, 0, b"x" * 1260)
    near.mtu = 1300 - OVERHEAD
    (told,) = near.drain("socket")
    assert told[ICMP].nexthopmtu == near.mtu
    at = 1260
    for size, expected in (
        (near.mtu - OVERHEAD - 40, ([near.mtu], [])),
        (near.mtu - OVERHEAD - 39, ([], [near.mtu + 1])),
        (near.mtu - 40, ([], [1300])),
    ):
        assert leaves(near, at, b"x" * size) == expected
        at += size
    assert near.drain("socket") == [], "the kernel knows"
    assert leaves(near, at, b"x" * (3 * near.mtu), gso=True)[1] == [], "batches are cut by the kernel"


def test_a_socket_that_repeats_less_is_sent_as_much_at_a_time() -> None:
    """It had no answer to its full segments, and tries smaller ones (net.ipv4.tcp_mtu_probing)."""
    near, far = ends()
    text = Random(4).randbytes(1400)
    near.send(0, text)
    assert leaves(near, 0, text) == ([1400 + OVERHEAD + 40], []), "the same again: only lost"
    parts = near.send(0, text[:1024])
    assert [len(part[TCP].payload) for part in parts] == [1024 + OVERHEAD, 1400 - 1024]
    far.take(parts[0])
    assert bytes(far.take(parts[1])[TCP].payload) == text
    assert [len(part[TCP].payload) for part in near.send(0, text[:40])] == [512, 512, 1422 - 1024], "a tail is no probe"


def test_a_repeated_part_of_a_record_that_was_never_longer_travels_whole() -> None:
    near, _ = ends()
    near.send(0, b"x" * 100)
    near.send(100, b"y" * 1300)
    assert [len(part[TCP].payload) for part in near.send(50, b"x" * 50)] == [100 + OVERHEAD], "from within a record"
    assert [len(part[TCP].payload) for part in near.send(0, b"x" * 100 + b"y" * 900)] == [1444]


def test_what_is_left_of_a_batch_is_injected_only_if_the_path_takes_it() -> None:
    """A packet not longer than the kernel's segments cannot come back from the queue as a batch (tcp_gso_segment)."""
    near, _ = ends()
    near.send(0, b"x" * SEGMENT * 4, "PA", gso=True)
    near.mtu = 1300
    verdict, injected = leaves(near, 0, b"x" * 1260, gso=True)
    assert verdict and verdict[0] > 1300 and not injected, "longer than a segment: the kernel cuts it"
    near.flow.paths.routes_changed()
    near.mtu = 1500
    verdict, injected = leaves(near, 0, b"x" * 1260, gso=True)
    assert not verdict and injected == [1478]


def test_records_wait_for_the_window_and_leave_when_it_opens() -> None:
    near, far = ends(window=300)
    wire = [packet for number in range(3) for packet in near.send(100 * number, bytes([number]) * 100)]
    assert len(wire) == 2, "three records and their overhead are more than 300 bytes"
    assert all(p[TCP].seq + len(p[TCP].payload) <= OURS + 1 + ORIGIN + 300 for p in wire)
    for packet in wire:
        far.take(packet)
    assert near.take(far.send(0, ack=200, window=300)[0]) is not DROP
    (late,) = near.drain("network")
    assert bytes(far.take(late)[TCP].payload) == bytes([2]) * 100


def test_a_retransmission_of_what_may_not_leave_asks_for_the_window() -> None:
    near, _ = ends(window=130)
    assert len(near.send(0, b"a" * 100)) == 1
    assert near.send(100, b"b" * 100) == []
    (probe,) = near.send(100, b"b" * 100)
    assert not bytes(probe[TCP].payload) and probe[TCP].seq == OURS + ORIGIN


@pytest.mark.parametrize("window", [1, 50, 1000])
def test_an_open_window_is_never_shown_closed(window: int) -> None:
    near, far = ends()
    far.take(near.send(0, b"x" * 100)[0])
    got = near.take(far.send(0, ack=100, window=window)[0])
    assert 1 <= got[TCP].window <= window


def test_a_closed_window_is_shown_closed() -> None:
    near, far = ends()
    far.take(near.send(0, b"x" * 100)[0])
    assert near.take(far.send(0, ack=100, window=0)[0])[TCP].window == 0


def test_keepalives_and_probes_stay_below_what_is_expected() -> None:
    near, far = ends()
    far.take(near.send(0, b"x" * 100)[0])
    near.take(far.send(0, ack=100)[0])
    (probe,) = near.send(99)
    assert probe[TCP].seq == OURS + 1 + ORIGIN + 100 + OVERHEAD - 1
    assert far.take(probe)[TCP].seq == OURS + 1 + 99


def test_what_was_lost_before_us_is_dropped() -> None:
    near, _ = ends()
    assert near.send(100, b"later") == [] and near.outcome.refused == {"gap-before-us": 1}


def test_data_behind_the_fin_is_dropped() -> None:
    near, _ = ends()
    near.send(0, b"end", "FA")
    assert near.send(3, b"more") == [] and near.outcome.refused == {"data-after-fin": 1}


def test_a_reset_is_translated_and_an_old_one_stays_old() -> None:
    near, far = ends()
    old = near.send(0, flags="RA")[0]
    assert old[TCP].seq == OURS + 1 + ORIGIN
    far.take(near.send(0, b"x" * 50)[0])
    far.send(0, ack=50)
    assert (far.take(old)[TCP].seq - OURS - 1) % 2**32 == (50 - (50 + OVERHEAD)) % 2**32
    assert not far.flow.is_closing()
    exact = far.take(near.send(50, flags="R")[0])
    assert exact[TCP].seq == OURS + 1 + 50 and exact[TCP].flags == "R" and far.flow.is_closing()


def test_a_reset_somewhere_in_the_window_is_not_exact() -> None:
    near, far = ends()
    near.send(0, b"x" * 50)  # lost
    got = far.take(near.send(50, flags="R")[0])
    assert got[TCP].seq != OURS + 1 and got[TCP].seq > OURS + 1


def test_a_reset_is_exact_where_an_empty_final_record_was_lost() -> None:
    near, far = ends()
    far.take(near.send(0, b"x" * 50)[0])
    near.take(far.send(0, ack=50)[0])
    near.send(50, flags="FA")  # lost
    reset = near.send(50, flags="R")[0]  # the answer of a closed socket to an acknowledgement of 50
    assert far.take(reset)[TCP].seq == OURS + 1 + 50


def test_a_resent_byte_is_never_sealed_again() -> None:
    near, _ = ends()
    (first,) = near.send(0, b"the first bytes")
    (again,) = near.send(0, b"CHANGED! bytes.")
    assert bytes(first[TCP].payload) == bytes(again[TCP].payload)
    assert near.flow.egress.records_sealed == 1 and near.flow.egress.retransmissions == 1
