"""What our socket sees of a segment from the network: true numbers round, others keep their distance."""

from __future__ import annotations

from typing import Any

import pytest
from scapy.layers.inet import IP, TCP

from mcencrypt.core.record import OVERHEAD
from mcencrypt.core.verdict import DROP
from tests.helpers.halves import ORIGIN, OURS, Half, ends, sack_of

RECORD = 100 + OVERHEAD
FAR = (1, 5, 22, 23, 1000, 1 << 20, 1 << 30, (1 << 31) - (1 << 21))


def seq_of(packet: Any) -> int:
    """The plain offset at which the socket sees it, from -2^31 on."""
    return int((packet[TCP].seq - OURS - 1 + 2**31) % 2**32 - 2**31)


def data(packet: Any) -> bytes:
    return bytes(packet[TCP].payload)


def heard(count: int = 3, acked: int | None = None) -> tuple[Half, Half, list[Any]]:
    """Records of 100 bytes that arrived, `acked` of them (or all) acknowledged by the socket; `far` gets them."""
    near, far = ends()
    sent = [near.send(100 * number, bytes([65 + number]) * 100)[0] for number in range(count)]
    for packet in sent:
        assert len(data(far.take(packet))) == 100
    far.send(0, ack=100 * (count if acked is None else acked))
    return near, far, sent


# -- sequence numbers


@pytest.mark.parametrize("distance", FAR)
def test_a_bare_segment_outside_keeps_its_distance(distance: int) -> None:
    _, far, _ = heard()
    edge = far.flow.ingress.right_edge
    assert seq_of(far.forge(ORIGIN + 3 * RECORD - distance)) == 300 - distance
    assert seq_of(far.forge(edge + distance)) == far.flow.ingress.plain_right_edge + distance
    assert far.flow.ingress.plain_right_edge == 1 << 20


def test_only_one_number_is_the_left_edge() -> None:
    """What stands at the edge sets the socket's ts_recent."""
    _, far, _ = heard(3, acked=2)
    found = {
        wire: far.flow.ingress.bare_plain(wire) for wire in range(ORIGIN + 2 * RECORD - 300, ORIGIN + 3 * RECORD + 300)
    }
    assert [wire for wire, plain in found.items() if plain == 200] == [ORIGIN + 2 * RECORD]
    assert found[ORIGIN + 3 * RECORD] == 300, "what is known is exact"
    assert all(a <= b for a, b in zip(found.values(), list(found.values())[1:], strict=False)), "in order"


def test_a_number_in_the_window_is_never_more_than_its_sender_can_have_meant() -> None:
    """Or the window would not be updated by what comes later (tcp_may_update_window)."""
    near, far = ends()
    sent = [near.send(100 * number, b"x" * 100)[0] for number in range(5)]
    far.take(sent[0])
    far.take(sent[3])
    for number in range(2, 6):
        assert 100 < seq_of(far.forge(ORIGIN + number * RECORD)) <= 100 * number


@pytest.mark.parametrize("size", [0, 30])
@pytest.mark.parametrize("order", ["usual", "other"])
def test_what_lies_behind_a_closed_window_comes_to_the_edge_without_its_timestamp(order: str, size: int) -> None:
    """A relay has sent into a window that was rounded down since: its kernel's acknowledgements stand behind that."""
    far = Half(False)
    far.send(0, b"x" * 100, stamps=(500, 9000))
    ingress = far.flow.ingress
    ingress.plain_right_edge = ingress.plain_acked
    options: list[Any] = [("NOP", None), ("NOP", None), ("Timestamp", (9500, 7))]
    if order == "other":
        options.reverse()
    got = far.forge(ORIGIN + 600 - size, b"y" * size, ack=ORIGIN + RECORD, options=options)
    assert (seq_of(got), got[TCP].ack) == (0, (far.isn + 101) % 2**32), "the socket takes it"
    assert dict(got[TCP].options)["Timestamp"] == (9000, 7)
    assert far.flow.ts_recent == 9000
    assert dict(far.forge(ORIGIN, options=options)[TCP].options)["Timestamp"] == (9500, 7), "the edge's own counts"


def test_a_piece_does_not_bring_its_timestamp_to_the_edge() -> None:
    """Its acknowledgement passes, but older data that comes later must not seem to be from before (PAWS)."""
    near, far = ends()
    (wire,) = near.send(0, b"x" * 300)
    got = far.forge(ORIGIN, data(wire)[:50], ack=ORIGIN, window=777)
    assert seq_of(got) == 1 and data(got) == b""
    assert data(far.take(wire)) == b"x" * 300


@pytest.mark.parametrize("length", [1, 21, 500])
def test_data_that_is_acknowledged_comes_as_zeros(length: int) -> None:
    _, far, _ = heard()
    for end in (0, 1, 5, 1000, 1 << 30):
        got = far.forge(ORIGIN + 3 * RECORD - end - length, b"!" * length)
        assert seq_of(got) == 300 - end - length and data(got) == bytes(length)


@pytest.mark.parametrize("distance", (0, *FAR))
def test_no_payload_from_behind_the_window_reaches_the_socket(distance: int) -> None:
    """One byte below what is acknowledged, where nothing counts that comes with it."""
    _, far, _ = heard()
    got = far.forge(far.flow.ingress.right_edge + distance, b"garbage" * 50, "FPA")
    assert data(got) == b"\0" and seq_of(got) + 1 < 300 and "F" not in str(got[TCP].flags)
    assert not far.flow.ingress.fragments


def test_what_straddles_the_edge_starts_there() -> None:
    near, far, sent = heard()
    (last,) = near.send(300, b"d" * 100)
    joined = sent[2].copy()
    joined[TCP].remove_payload()
    raw = bytes(near.packet(sent[2][TCP].seq, sent[2][TCP].ack, "A", data(sent[2]) + data(last), 60000, []))
    got = far.take(IP(raw))
    assert seq_of(got) == 300 and data(got) == b"d" * 100


def test_the_end_of_what_is_known_is_not_crossed_by_a_record() -> None:
    """A record that reaches behind the offered window is cut off, and not opened."""
    near, far = Half(True), Half(False)
    far.flow.ingress.right_edge = ORIGIN + RECORD + 50
    first, second = near.send(0, b"a" * 100)[0], near.send(100, b"b" * 100)[0]
    raw = near.packet(first[TCP].seq, first[TCP].ack, "A", data(first) + data(second), 60000, [])
    assert data(far.take(IP(raw))) == b"a" * 100
    assert far.flow.ingress.ledger.wire_top == ORIGIN + RECORD
    far.send(0, ack=100)  # the window opens
    assert data(far.take(second)) == b"b" * 100


@pytest.mark.parametrize("window", [0, 3, 50])
@pytest.mark.parametrize("cut", [1, 5, 6, 60])
def test_the_record_at_the_edge_may_reach_behind_the_window(window: int, cut: int) -> None:
    """A sender asks for the window with it, and a path may cut it in pieces."""
    near, far = Half(True), Half(False)
    far.flow.ingress.right_edge = ORIGIN + window
    (wire,) = near.send(0, b"a" * 100)
    pieces = [
        near.packet(wire[TCP].seq + at, wire[TCP].ack, "A", data(wire)[at : at + cut], 60000, [])
        for at in range(0, RECORD, cut)
    ]
    for _ in range(RECORD):  # it asks again and again
        got = [data(packet) for packet in (far.take(IP(piece)) for piece in pieces) if packet is not DROP]
        if b"a" * 100 in got:
            return
    pytest.fail("it never became whole")


# -- resets


def test_a_reset_at_the_edges_of_records_is_exact_and_elsewhere_is_not() -> None:
    for ended in (False, True):
        near, far, _ = heard()
        (last,) = near.send(300, b"d" * 100, "FA" if ended else "A")
        far.take(last)
        top = 400 + ended
        wire_top = ORIGIN + 4 * RECORD + ended
        exact = [
            wire
            for wire in (
                *range(ORIGIN, ORIGIN + 5000),
                *range(far.flow.ingress.right_edge - 50, ORIGIN + (1 << 21), 997),
            )
            if far.flow.ingress.reset_plain(wire)[0] == top
        ]
        assert exact == [wire_top]
        far.send(0, ack=top)
        for distance in FAR:
            assert seq_of(far.forge(wire_top + distance, flags="R")) > top
            assert seq_of(far.forge(wire_top - distance, flags="R")) == top - distance
            assert seq_of(far.forge(far.flow.ingress.right_edge + distance, flags="R")) > top
            assert not far.flow.closing
        assert seq_of(far.forge(wire_top, flags="R")) == top and far.flow.closing


# -- the end of the stream


def test_a_fin_counts_where_its_record_ends_and_nowhere_else() -> None:
    near, far, _ = heard()
    for wire in range(ORIGIN + 3 * RECORD, ORIGIN + 4 * RECORD + 5):
        assert "F" not in str(far.forge(wire, flags="FA")[TCP].flags)
    (last,) = near.send(300, b"d" * 100, "FA")
    got = far.take(last)
    assert "F" in str(got[TCP].flags) and data(got) == b"d" * 100
    again = far.forge(ORIGIN + 4 * RECORD, flags="FA")
    assert "F" in str(again[TCP].flags) and seq_of(again) == 400
    far.send(0, ack=401)
    again = far.take(last)
    assert seq_of(again) + len(data(again)) == 400 and "F" in str(again[TCP].flags)
    assert "F" not in str(far.forge(ORIGIN + 4 * RECORD + 1, flags="FA")[TCP].flags)


def test_a_fin_whose_data_is_acknowledged_comes_alone() -> None:
    near, far, _ = heard()
    (last,) = near.send(300, b"d" * 100, "FA")
    far.forge(last[TCP].seq - OURS - 1, data(last))  # its flag was lost on the way
    far.send(0, ack=400)
    got = far.take(last)
    assert data(got) == b"" and seq_of(got) == 400 and "F" in str(got[TCP].flags)


# -- acknowledgements


@pytest.mark.parametrize("distance", FAR)
def test_acknowledgements_that_cannot_be_true_keep_their_distance(distance: int) -> None:
    near, far, _ = heard()
    near.take(far.send(0, ack=200)[0])
    base = ORIGIN + 2 * RECORD
    for ack, plain in ((base - distance, 200 - distance), (ORIGIN + 3 * RECORD + distance, (1 << 20) + distance)):
        got = near.forge(ORIGIN, ack=ack)
        assert (got[TCP].ack - OURS - 1 - plain) % 2**32 == 0
    assert near.flow.egress.una == base


@pytest.mark.parametrize("count", [1, 2, 3])
def test_an_old_acknowledgement_that_can_be_true_is_never_older_than_the_stream(count: int) -> None:
    """Linux drops a segment, and the data in it, that acknowledges less than the window or the whole stream before what
    is acknowledged (RFC 5961 section 5.2, tcp_ack); distances on the wire are longer by our overhead.
    """
    near, far, _ = heard(count)
    near.take(far.send(0, ack=100 * count)[0])
    for wire in range(ORIGIN, ORIGIN + count * RECORD, RECORD // 2):
        got = near.forge(ORIGIN, ack=wire)
        assert 0 <= (got[TCP].ack - OURS - 1 + 2**31) % 2**32 - 2**31 <= 100 * count
    assert (near.forge(ORIGIN, ack=ORIGIN - 1)[TCP].ack - OURS - 1) % 2**32 >= 2**31, "older than the stream"


def test_what_waits_for_the_window_was_not_sent() -> None:
    """Plain TCP refuses an acknowledgement of it."""
    near, _ = ends(window=300)
    assert len([packet for number in range(3) for packet in near.send(100 * number, b"x" * 100)]) == 2
    got = near.forge(ORIGIN, ack=ORIGIN + 3 * RECORD)
    assert (got[TCP].ack - OURS - 1) % 2**32 > 300
    assert near.flow.egress.una == ORIGIN
    got = near.forge(ORIGIN, ack=ORIGIN + 2 * RECORD)
    assert got[TCP].ack == OURS + 1 + 200


def stamped(near: Half, stamp: int, **fields: Any) -> Any:
    return near.forge(ORIGIN, options=[("NOP", None), ("NOP", None), ("Timestamp", (stamp, 0))], **fields)


@pytest.mark.parametrize("order", ["usual", "other"])
def test_an_acknowledgement_that_paws_refuses_forgets_nothing(order: str) -> None:
    near = Half(True)
    near.send(0, b"x" * 100, stamps=(500, 9000))
    options: list[Any] = [("NOP", None), ("NOP", None), ("Timestamp", (8999, 0))]
    if order == "other":
        options.reverse()
    near.forge(ORIGIN, ack=ORIGIN + RECORD, options=options)
    egress = near.flow.egress
    assert egress.una == ORIGIN and egress.ledger.runs[0].blob
    assert stamped(near, 9000, ack=ORIGIN + RECORD)[TCP].ack == OURS + 1 + 100
    assert egress.una == ORIGIN + RECORD and not egress.ledger.runs[0].blob


@pytest.mark.parametrize("outside", [-1, 1 << 20, 1 << 31])
def test_an_acknowledgement_from_outside_the_window_moves_nothing(outside: int) -> None:
    near = Half(True)
    near.send(0, b"x" * 100)
    egress = near.flow.egress
    edge = egress.right_edge
    wire = near.flow.ingress.right_edge + 1 if outside == 1 << 20 else ORIGIN + outside
    near.forge(wire, ack=ORIGIN + RECORD, window=65535)
    assert (egress.una, egress.right_edge) == (ORIGIN, edge) and egress.ledger.runs[0].blob


def test_sack_blocks_of_segments_that_do_not_count_are_taken_out() -> None:
    near = Half(True)
    for number in range(4):
        near.send(100 * number, b"x" * 100)
    block = tuple(OURS + 1 + ORIGIN + edge * RECORD for edge in (2, 3))
    options = [("NOP", None), ("NOP", None), ("SAck", block)]
    assert sack_of(near.forge(ORIGIN, options=options), OURS) == [(200, 300)]
    assert near.flow.egress.sacked
    outside = near.forge(near.flow.ingress.right_edge + 5, options=options)
    assert sack_of(outside, OURS) == [] and near.flow.egress.sacked
    near.forge(ORIGIN)
    assert not near.flow.egress.sacked


def test_a_reset_answers_what_was_acknowledged_by_the_same_way_back() -> None:
    """A host without the socket puts the acknowledgement it saw into its reset."""
    near, far, _ = heard()
    near.take(far.send(0, ack=200)[0])
    for wire in (ORIGIN + 2 * RECORD, ORIGIN + 3 * RECORD, ORIGIN + 2 * RECORD - 7, ORIGIN + 3 * RECORD + 99):
        seen = near.forge(ORIGIN, ack=wire)
        (reset,) = near.send((seen[TCP].ack - OURS - 1 + 2**31) % 2**32 - 2**31, flags="R")
        assert (reset[TCP].seq - OURS - 1 - wire) % 2**32 == 0


# -- D-SACK


@pytest.mark.parametrize("more", [0, 100])
def test_a_duplicate_is_reported_where_it_was(more: int) -> None:
    """Also when the answer acknowledges more than our socket had acknowledged before."""
    near, far, sent = heard(3)
    if more:
        far.take(near.send(300, b"d" * more)[0])
    got = far.take(sent[1])
    block = (seq_of(got), seq_of(got) + len(data(got)))
    (answer,) = far.send(0, ack=300 + more, sack=[block])
    assert sack_of(answer, OURS) == [(ORIGIN + RECORD, ORIGIN + 2 * RECORD)]
    assert sack_of(near.take(answer), OURS) == [(100, 200)]


def test_a_duplicate_in_the_window_is_opened_and_reported_by_its_record() -> None:
    _, far, sent = heard(3, acked=1)
    got = far.take(sent[1])
    assert data(got) == b"B" * 100 and seq_of(got) == 100
    (answer,) = far.send(0, ack=300, sack=[(100, 200)])
    assert sack_of(answer, OURS) == [(ORIGIN + RECORD, ORIGIN + 2 * RECORD)]


# -- congestion marks


def ecn_of(packet: Any) -> int:
    return int(packet[IP].tos) & 3


def test_a_mark_on_a_piece_is_delivered_with_its_record() -> None:
    near, far = ends()
    (wire,) = near.send(0, b"x" * 300)
    raw = data(wire)
    first = far.forge(ORIGIN, raw[:100], tos=3)
    assert first is DROP or not data(first)
    assert far.forge(ORIGIN + 100, raw[100:200], flags="AC", tos=2) is DROP
    got = far.forge(ORIGIN + 200, raw[200:], tos=2)
    assert data(got) == b"x" * 300 and ecn_of(got) == 3 and "C" in str(got[TCP].flags)
    (wire,) = near.send(300, b"y" * 300)
    got = far.forge(wire[TCP].seq - OURS - 1, data(wire), tos=2)
    assert ecn_of(got) == 2 and "C" not in str(got[TCP].flags), "told once"


def test_a_mark_on_what_does_not_count_is_forgotten() -> None:
    near, far = ends()
    (wire,) = near.send(0, b"x" * 300)
    far.forge(far.flow.ingress.right_edge + 100, b"junk", tos=3)
    assert ecn_of(far.forge(ORIGIN, data(wire), tos=2)) == 2


def test_records_that_waited_leave_with_the_marks_of_their_data() -> None:
    """An acknowledgement of our own, which carries none, came in between."""
    near, far = ends(window=300)
    for number in range(3):
        near.send(100 * number, b"x" * 100, tos=2)
    near.send(300, tos=0)  # an acknowledgement
    far.forge(ORIGIN)
    near.take(far.send(0, ack=0, window=3000)[0])
    (late,) = near.drain("network")
    assert ecn_of(late) == 2 and len(data(late)) > 100


def test_a_reduced_window_is_told_once() -> None:
    """CWR goes with the first of the packets that one batch becomes (RFC 3168 section 6.1.2)."""
    near = Half(True)
    near.mtu = 600
    parts = near.send(0, b"x" * 1400, "APC", tos=2)
    assert len(parts) > 1
    assert ["C" in str(part[TCP].flags) for part in parts] == [True] + [False] * (len(parts) - 1)
