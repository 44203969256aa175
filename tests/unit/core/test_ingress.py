"""Records that come in pieces, in any order, beside junk: what is opened, what is kept, and what it costs."""

from __future__ import annotations

import sys
import tracemalloc
from collections.abc import Callable
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcencrypt.core import ingress as ingress_module
from mcencrypt.core import ledger as ledger_module
from mcencrypt.core.fragments import Fragments, Pool
from mcencrypt.core.ingress import Ingress
from mcencrypt.core.record import OVERHEAD, Keys, seal

ORIGIN = 138
KEY = bytes(range(32))
WINDOW = 1 << 22


def receiver(window: int = WINDOW, pool: Pool | None = None) -> Ingress:
    ingress = Ingress(0, ORIGIN, Keys(KEY), pool)
    ingress.offer(window)
    return ingress


def sealed(sizes: list[int], final: bool = False) -> tuple[bytes, bytes, list[int]]:
    """The plaintext, the wire from the origin on, and where each record begins on it."""
    keys, plain, wire, starts = Keys(KEY), b"", b"", []
    for index, size in enumerate(sizes):
        data = Random(index).randbytes(size)
        starts.append(ORIGIN + len(wire))
        wire += b"".join(seal(keys, data, len(plain), starts[-1], size, final and index == len(sizes) - 1))
        plain += data
    return plain, wire, starts


def read(deliveries: list[Any], into: dict[int, bytes]) -> None:
    for plain, end, chunks in deliveries:
        data = b"".join(chunks)
        assert end == plain + len(data)
        into[plain] = max(data, into.get(plain, b""), key=len)


def together(parts: dict[int, bytes]) -> bytes:
    found = bytearray()
    for plain in sorted(parts):
        assert plain <= len(found), "a hole"
        found[plain : plain + len(parts[plain])] = parts[plain]
    return bytes(found)


# -- pieces


@pytest.mark.parametrize("cut", [1, 7, 100, 721])
@pytest.mark.parametrize("which", range(3))
@pytest.mark.parametrize("backwards", [False, True])
def test_a_record_that_our_socket_lost_again_can_come_in_pieces(cut: int, which: int, backwards: bool) -> None:
    """The kernel drops what was delivered out of order when it needs the room (tcp_prune_ofo_queue), and what came with
    an acknowledgement that is too old. Until the socket acknowledges it, it may come again in any form.
    """
    plain, wire, starts = sealed([700, 700, 700, 700])
    ingress = receiver()
    for start, end in zip(starts[1:], [*starts[2:], ORIGIN + len(wire)], strict=True):
        assert ingress.receive(start, wire[start - ORIGIN : end - ORIGIN])
    at = starts[1 + which]
    pieces = [(at, wire[at - ORIGIN :][:cut]), (at + cut, wire[at - ORIGIN + cut :][: 722 - cut])]
    got: dict[int, bytes] = {}
    for place, piece in reversed(pieces) if backwards else pieces:
        read(ingress.receive(place, piece), got)
    assert got == {700 * (1 + which): plain[700 * (1 + which) :][:700]}
    assert not ingress.fragments and not ingress.auth_failures


def test_pieces_that_touch_several_records_that_are_known() -> None:
    plain, wire, starts = sealed([100] * 6)
    ingress = receiver()
    assert ingress.receive(starts[1], wire[starts[1] - ORIGIN :])
    got: dict[int, bytes] = {}
    middle = (starts[2] + 60, starts[5] + 60)
    for begin, end in ((starts[5] + 60, starts[5] + 122), (starts[1], starts[2] + 60), middle):
        read(ingress.receive(begin, wire[begin - ORIGIN : end - ORIGIN]), got)
    assert together({0: plain[:100], **got}) == plain


@settings(max_examples=150)
@given(
    st.lists(st.sampled_from((1, 5, 40, 100, 700)), min_size=1, max_size=12),
    st.lists(st.integers(1, 300), min_size=1, max_size=20),
    st.randoms(use_true_random=False),
    st.booleans(),
)
def test_pieces_in_any_order_and_overlap(sizes: list[int], cuts: list[int], random: Random, final: bool) -> None:
    plain, wire, _ = sealed(sizes, final)
    pieces, at = [], 0
    while at < len(wire):
        length = cuts[len(pieces) % len(cuts)]
        more = random.choice((0, 0, 30))
        pieces.append((ORIGIN + at, wire[at : at + length + more]))
        at += length
    if random.random() < 0.7:
        random.shuffle(pieces)
    ingress, got = receiver(), dict[int, bytes]()
    for at, piece in pieces:
        read(ingress.receive(at, piece), got)
    assert together(got) == plain
    assert ingress.ledger.wire_edge == ORIGIN + len(wire)
    ingress.acknowledge(ORIGIN + len(wire), len(plain), WINDOW)
    assert not ingress.fragments and not ingress.auth_failures, "nothing is left, nothing was wrong"
    assert (ingress.final_plain == len(plain)) is final


@settings(max_examples=100)
@given(st.lists(st.sampled_from((40, 40, 40, 100, 700)), min_size=1, max_size=10), st.randoms(use_true_random=False))
def test_junk_among_the_pieces_only_delays(sizes: list[int], random: Random) -> None:
    """Whatever lands in the window: once all has come again, undisturbed, all is there."""
    plain, wire, _ = sealed(sizes)
    ingress, got = receiver(), dict[int, bytes]()
    for _ in range(30):
        at = random.randrange(len(wire))
        piece = wire[at : at + random.randint(1, 200)]
        if random.random() < 0.4:
            piece = random.randbytes(len(piece))
        read(ingress.receive(ORIGIN + at, piece), got)
    for _ in range(len(sizes) + 30):  # junk costs its place, a repetition each
        for at in range(0, len(wire), 50):
            read(ingress.receive(ORIGIN + at, wire[at : at + 50]), got)
    assert together(got) == plain


def test_pieces_of_what_is_known_are_kept_until_it_is_acknowledged() -> None:
    _, wire, starts = sealed([100, 100, 100])
    ingress = receiver()
    ingress.receive(starts[0], wire[: 2 * 122])
    assert ingress.receive(starts[0] + 5, wire[5:200]) == []
    ingress.receive(starts[1] + 70, wire[122 + 70 : 300])
    assert ingress.fragments.span(starts[0] + 5) is not None
    ingress.acknowledge(starts[2], 200, WINDOW)
    assert ingress.fragments.span(starts[2]) is not None and ingress.fragments.span(starts[2] - 1) is None


def test_whole_records_take_the_place_of_their_pieces() -> None:
    _, wire, starts = sealed([100, 100])
    ingress = receiver()
    ingress.receive(starts[1] + 30, wire[152:180])
    assert ingress.fragments
    ingress.receive(starts[0], wire)
    assert not ingress.fragments


def test_a_record_behind_a_lost_piece_is_found_by_its_size() -> None:
    """The boundary is a guess, and its tag tells; so the socket can report what it has."""
    plain, wire, starts = sealed([500] * 6)
    ingress, got = receiver(), dict[int, bytes]()
    read(ingress.receive(starts[0], wire[: 522 + 100]), got)
    for at in range(622 + 300, len(wire), 150):  # from the middle of the second record on: that one has a hole
        read(ingress.receive(ORIGIN + at, wire[at : at + 150]), got)
    assert {plain for plain in got if plain >= 1000} and got[0] == plain[:500]
    read(ingress.receive(ORIGIN + 622, wire[622:922]), got)
    assert together(got) == plain and not ingress.fragments


def test_pieces_that_are_acknowledged_are_forgotten() -> None:
    _, wire, starts = sealed([100, 100])
    ingress = receiver()
    ingress.receive(starts[0] + 1, wire[1:50])
    assert ingress.fragments
    ingress.receive(starts[0], wire)
    ingress.acknowledge(starts[1], 100, WINDOW)
    assert not ingress.fragments and not ingress.fragments.memory


@pytest.mark.parametrize("waiting", [0, 3, 4000, 9000])
@pytest.mark.parametrize("covered", [(0, 122), (122, 122), (0, 244), (60, 100), (0, 7)])
def test_junk_over_known_records_costs_no_other_record_anything(covered: tuple[int, int], waiting: int) -> None:
    """Nobody looks at it, as at what plain TCP has received; a header in it claims what it likes."""
    plain, wire, starts = sealed([100, 100, 9000, 100])
    for claimed in (0, 50, 99, 100, 101, 150, 400, 5000, 9000, 32767):
        ingress, got = receiver(), dict[int, bytes]()
        read(ingress.receive(starts[0], wire[:244]), got)  # and our socket has acknowledged nothing yet
        if waiting:
            assert ingress.receive(starts[2], wire[244 : 244 + waiting]) == []
        first, size = covered
        junk = claimed.to_bytes(2, "big") + Random(1).randbytes(size - 2)
        assert ingress.receive(ORIGIN + first, junk) == []
        read(ingress.receive(starts[2] + waiting, wire[244 + waiting :]), got)
        assert together(got) == plain, claimed


def test_junk_over_a_known_record_does_not_widen_the_window() -> None:
    """At its left edge a record may reach behind the right one, by what its header says, or what is known of it."""
    _, wire, starts = sealed([100, 100])
    junk = b"\x7f\xff" + bytes(50)
    for window, known in ((50, starts[1]), (1000, ORIGIN + 1000)):
        ingress = receiver(window)
        assert ingress.keeps_until(ORIGIN, junk) == ORIGIN + 32767 + OVERHEAD
        ingress.receive(starts[0], wire[:122])
        assert ingress.keeps_until(ORIGIN, junk) == known
        ingress.receive(ORIGIN, junk)
        assert ingress.keeps_until(ORIGIN + 10, junk) == known


# -- bounds


def test_runs_are_bounded_on_every_path(monkeypatch: pytest.MonkeyPatch) -> None:
    """Records of ever other sizes, in order and out of order, none acknowledged."""
    monkeypatch.setattr(ledger_module, "MAX_RUNS", 64)
    monkeypatch.setattr(ledger_module, "RETIRED", 8)
    _, wire, starts = sealed([1 + index % 2 for index in range(400)])
    ends = [*starts[1:], ORIGIN + len(wire)]
    for order in (range(400), range(399, -1, -1), range(1, 400, 2), [0, *range(2, 400)]):
        ingress = receiver()
        for index in order:
            ingress.receive(starts[index], wire[starts[index] - ORIGIN : ends[index] - ORIGIN])
        assert len(ingress.ledger.runs) <= 64
    # What fills the first hole always finds its place, so that the stream goes on, as it is acknowledged.
    got = dict[int, bytes]()
    ingress = receiver()
    for index in range(1, 400):
        ingress.receive(starts[index], wire[starts[index] - ORIGIN : ends[index] - ORIGIN])
    for _ in range(400):
        edge = ingress.ledger.wire_edge
        if edge == ends[-1]:
            break
        for index in (index for index in range(400) if edge <= starts[index] < edge + 1000):
            read(ingress.receive(starts[index], wire[starts[index] - ORIGIN : ends[index] - ORIGIN]), got)
        ingress.acknowledge(ingress.ledger.wire_edge, ingress.ledger.plain_edge, WINDOW)
    assert ingress.ledger.wire_edge == ends[-1]


def test_the_runs_of_a_flow_take_little_memory() -> None:
    """73 MB, they did."""
    _, wire, starts = sealed([1 + index % 2 for index in range(20_000)])
    ingress = receiver()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        for at in range(0, len(wire), 23 * 1000):
            ingress.receive(ORIGIN + at, wire[at : at + 23 * 1000])
        for start in starts[1::2]:
            ingress.receive(start, wire[start - ORIGIN : start - ORIGIN + 24])
        assert tracemalloc.get_traced_memory()[0] - before < 5 << 20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ((ORIGIN, 0, 100), (ORIGIN + 122, 150)),  # nothing can be between them
        ((ORIGIN, 0, 100), (ORIGIN + 122 + 10, 100)),  # not even a header fits
        ((ORIGIN, 0, 100), (ORIGIN + 122 + 100, 179)),  # more plaintext than fits beside its overhead
        ((ORIGIN + 1000, 900, 100), (ORIGIN + 1122 + 100, 999)),  # earlier than what comes before
        ((ORIGIN + 100, 78, 100), (ORIGIN, 0)),  # the first of all: it reaches into the second
    ],
)
def test_records_that_cannot_both_be_true_are_refused(first: tuple[int, int, int], second: tuple[int, int]) -> None:
    ingress = receiver()
    for wire, plain, size in (first, (*second, 100)):
        record = b"".join(seal(Keys(KEY), bytes(size), plain, wire, size, False))
        delivered = ingress.receive(wire, record)
        assert bool(delivered) == (wire == first[0])
    assert len(ingress.ledger.runs) == 1


def test_seventeen_flows_of_junk_leave_room_for_the_eighteenth() -> None:
    pool = Pool()
    dice = Random(1)
    for _ in range(17):
        ingress = receiver(1 << 26, pool)
        for _ in range(1500):
            ingress.receive(ORIGIN + 100 + dice.randrange(1 << 26), dice.randbytes(1400))
        assert ingress.fragments.memory <= Fragments.LIMIT
    plain, wire, _ = sealed([30_000] * 20)
    honest, got = receiver(pool=pool), dict[int, bytes]()
    for at in range(0, len(wire), 700):
        read(honest.receive(ORIGIN + at, wire[at : at + 700]), got)
    assert together(got) == plain and pool.memory <= pool.limit


def test_junk_in_the_window_does_not_keep_pieces_at_the_edge_out() -> None:
    dice = Random(1)
    ingress = receiver()
    for _ in range(3000):
        ingress.receive(ORIGIN + 40_000 + dice.randrange(WINDOW - 50_000), dice.randbytes(1400))
    assert ingress.fragments.memory > Fragments.LIMIT * 0.9
    plain, wire, _ = sealed([1000] * 20)
    got = dict[int, bytes]()
    for at in range(0, len(wire), 300):
        read(ingress.receive(ORIGIN + at, wire[at : at + 300]), got)
    assert together(got) == plain


# -- work


def work(action: Callable[[], object]) -> tuple[int, int]:
    """Python lines that run, and bytes that go through decryption, while `action` runs."""
    lines = opened = 0
    original = ingress_module.open_run

    def counting(keys: Any, data: Any, wire: int) -> Any:
        nonlocal opened
        opened += len(data)
        return original(keys, data, wire)

    def trace(frame: Any, event: str, argument: Any) -> Any:
        nonlocal lines
        lines += event == "line"
        return trace

    ingress_module.open_run = counting  # type: ignore[assignment]
    before = sys.gettrace()
    sys.settrace(trace)
    try:
        action()
    finally:
        sys.settrace(before)
        ingress_module.open_run = original
    return lines, opened


def holes(ingress: Ingress, count: int, size: int = 3) -> tuple[bytes, list[int]]:
    """Every second of many tiny records is there, as an insider can send them."""
    _, wire, starts = sealed([size] * (2 * count))
    for start in starts[1::2]:
        ingress.receive(start, wire[start - ORIGIN : start - ORIGIN + size + OVERHEAD])
    return wire, starts


def junk(ingress: Ingress, count: int, apart: int) -> None:
    for number in range(count):
        ingress.fragments.add(ORIGIN + 1_000_000 - number * apart, b"?")


@pytest.mark.parametrize("packet", ["junk", "piece", "whole", "in a hole"])
@pytest.mark.parametrize("state", ["holes", "single bytes", "one span"])
def test_a_packet_costs_the_same_however_much_waits(state: str, packet: str) -> None:
    """It was 25 ms for junk and 0.3 s among tiny records with holes."""
    costs = []
    for count in (100, 400):
        ingress = receiver()
        wire, starts = holes(ingress, count if state == "holes" else 10)
        junk(ingress, 0 if state == "holes" else count, 3 if state == "single bytes" else 1)
        assert bool(ingress.fragments) == (state != "holes")
        at, data = {
            "junk": (ORIGIN + 1_000_001, b"!" * 50),
            "piece": (starts[4], wire[starts[4] - ORIGIN : starts[4] - ORIGIN + 10]),
            "whole": (starts[0], wire[:25]),
            "in a hole": (starts[-2] + 3, wire[starts[-2] + 3 - ORIGIN : starts[-2] + 13 - ORIGIN]),
        }[packet]
        costs.append(work(lambda at=at, data=data, ingress=ingress: ingress.receive(at, data)))  # type: ignore[misc]
    (few_lines, few_bytes), (many_lines, many_bytes) = costs
    assert many_lines <= few_lines + 20, costs
    assert many_bytes <= few_bytes + 100, costs


@pytest.mark.parametrize("packet", ["beside it", "in its middle", "in a hole"])
def test_a_packet_copies_nothing_of_what_waits(packet: str) -> None:
    """Memory that is taken while it is handled, compiled code's too: copies cost no lines."""
    most = []
    for waiting in (64_000, 1_024_000):
        ingress = receiver(1 << 26)
        first, last = ORIGIN + 200_000, ORIGIN + 200_000 + waiting
        for at in range(first, last, 1000):
            ingress.receive(at, b"?" * 1000)
        assert ingress.fragments.span(first) == (first, last), "one span, without a record in it"
        at = {"beside it": last, "in its middle": first + waiting // 2, "in a hole": ORIGIN + 100_000}[packet]
        tracemalloc.start()
        try:
            ingress.receive(at, b"!" * 700)
            most.append(tracemalloc.get_traced_memory()[1])
        finally:
            tracemalloc.stop()
    assert most[1] <= most[0] + 3000, most


def test_a_record_in_single_bytes_costs_no_more_than_these() -> None:
    """The sum over all of them grows with the record, not with its square."""
    costs = []
    for size in (500, 2000):
        _, wire, _ = sealed([size])
        ingress = receiver()
        lines = opened = 0
        for at in (*range(len(wire) - 1, 0, -1), 0):
            more, bytes_opened = work(lambda at=at, i=ingress, w=wire: i.receive(ORIGIN + at, w[at : at + 1]))  # type: ignore[misc]
            lines, opened = lines + more, opened + bytes_opened
        assert ingress.ledger.wire_edge == ORIGIN + len(wire)
        costs.append((lines / len(wire), opened / len(wire)))
    assert costs[1][0] <= 1.2 * costs[0][0] and costs[1][1] <= costs[0][1] + 1, costs
