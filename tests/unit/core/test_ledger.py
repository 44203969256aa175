"""The ledger against a naive one: a list of records, searched from the start each time."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcencrypt.core import ledger as ledger_module
from mcencrypt.core.ledger import Ledger, Run, unwrap
from mcencrypt.core.record import OVERHEAD

ORIGIN = 138
Record = tuple[int, int, int]  # plain offset, wire offset, plaintext length


class Naive:
    """All records, in stream order."""

    def __init__(self, records: list[Record]) -> None:
        self.records = sorted(records)

    def pairs(self) -> list[tuple[int, int]]:
        """(plain, wire) of every known record boundary."""
        found = {(0, ORIGIN)}
        for plain, wire, length in self.records:
            found |= {(plain, wire), (plain + length, wire + length + OVERHEAD)}
        return sorted(found)

    def wire_floor(self, plain: int) -> int:
        return max((wire for at, wire in self.pairs() if at <= plain), default=ORIGIN)

    def plain_floor(self, wire: int) -> int:
        return max((plain for plain, at in self.pairs() if at <= wire), default=0)

    def wire_block(self, start: int, end: int) -> tuple[int, int] | None:
        inside = [(w, w + n + OVERHEAD) for p, w, n in self.records if start <= p and p + n <= end and n]
        return (inside[0][0], inside[-1][1]) if inside else None

    def plain_block(self, start: int, end: int) -> tuple[int, int] | None:
        inside = [(p, p + n) for p, w, n in self.records if start <= w and w + n + OVERHEAD <= end and n]
        return (inside[0][0], inside[-1][1]) if inside else None

    def records_of(self, plain: int, plain_end: int) -> tuple[int, int]:
        starts = [(w, w + n + OVERHEAD) for p, w, n in self.records if plain <= p < plain_end and n]
        if not starts:
            starts = [(w, w + n + OVERHEAD) for p, w, n in self.records if p <= plain < p + n]
        return starts[0][0], starts[-1][1]


@st.composite
def batches(draw: st.DrawFn) -> list[tuple[int, int]]:
    """(length, record size) of what is sent in one go."""
    sizes = st.sampled_from((1, 3, 10, 64))
    return draw(st.lists(st.tuples(st.integers(1, 40), sizes), min_size=1, max_size=8))


def sent(runs: list[tuple[int, int]]) -> tuple[Ledger, Naive, bytes]:
    """An egress ledger of runs, with made-up ciphertext."""
    ledger, records, wire_bytes = Ledger(ORIGIN), [], bytearray()
    plain, wire = 0, ORIGIN
    noise = Random(1)
    for length, size in runs:
        blob = noise.randbytes(length + -(-length // size) * OVERHEAD)
        run = Run(plain, wire, length, size, blob)
        assert run.wire_end - run.wire == len(blob)
        ledger.append(run)
        for at in range(0, length, size):
            count = min(size, length - at)
            records.append((plain + at, wire, count))
            wire += count + OVERHEAD
        plain += length
        wire_bytes += blob
    return ledger, Naive(records), bytes(wire_bytes)


@given(batches(), st.data())
def test_what_was_sent(runs: list[tuple[int, int]], data: st.DataObject) -> None:
    ledger, naive, wire_bytes = sent(runs)
    plain_top, wire_top = ledger.plain_top, ledger.wire_top
    assert (plain_top, wire_top) == naive.pairs()[-1]
    boundaries = {wire for _, wire in naive.pairs()}
    plain = data.draw(st.integers(0, plain_top))
    wire = data.draw(st.integers(ORIGIN, wire_top))
    assert ledger.wire_floor(plain) == naive.wire_floor(plain)
    assert ledger.plain_floor(wire) == naive.plain_floor(wire)
    assert ledger.is_boundary(wire) == (wire in boundaries)
    assert ledger.last_boundary(wire) == max(at for at in boundaries if at <= wire)
    if wire < wire_top:
        assert ledger.next_boundary(wire) == min(at for at in boundaries if at > wire)
    start, end = sorted((plain, data.draw(st.integers(0, plain_top))))
    assert ledger.wire_block(start, end) == naive.wire_block(start, end)
    if start < end:
        assert ledger.records_of(start, end) == naive.records_of(start, end)
    start, end = sorted((wire, data.draw(st.integers(ORIGIN, wire_top))))
    assert ledger.plain_block(start, end) == naive.plain_block(start, end)
    assert b"".join(ledger.between(start, end)) == wire_bytes[start - ORIGIN : end - ORIGIN]


@given(batches(), st.randoms(use_true_random=False), st.data())
def test_what_came_in_any_order(runs: list[tuple[int, int]], random: Random, data: st.DataObject) -> None:
    _, everything, _ = sent(runs)
    ledger, known = Ledger(ORIGIN), Naive([])
    order = list(everything.records)
    random.shuffle(order)
    for plain, wire, length in order[: data.draw(st.integers(0, len(order)))]:
        assert ledger.insert(Run(plain, wire, length, length))
        if (plain, wire, length) not in known.records:
            known = Naive([*known.records, (plain, wire, length)])
        edge = (0, ORIGIN)
        for record in known.records:
            if record[1] == edge[1]:
                edge = (record[0] + record[2], record[1] + record[2] + OVERHEAD)
        assert (ledger.plain_edge, ledger.wire_edge) == edge
        assert (ledger.plain_top, ledger.wire_top) == known.pairs()[-1]
    for plain, wire in known.pairs():
        assert ledger.is_boundary(wire)
        assert ledger.plain_floor(wire) == plain
        assert ledger.wire_floor(plain) == known.wire_floor(plain)
    wire = data.draw(st.integers(ORIGIN, everything.pairs()[-1][1]))
    assert ledger.plain_floor(wire) == known.plain_floor(wire)
    assert ledger.is_boundary(wire) == (wire in {at for _, at in known.pairs()})
    # A SACK block of the socket is a range without holes.
    plain_top = everything.pairs()[-1][0]
    has = {at for plain, _, length in known.records for at in range(plain, plain + length)}
    start = data.draw(st.integers(0, plain_top))
    end = start + data.draw(st.integers(0, next(n for n in range(plain_top + 1) if start + n not in has)))
    assert ledger.wire_block(start, end) == known.wire_block(start, end)
    assert len(ledger.runs) <= len(known.records)


@given(batches(), st.randoms(use_true_random=False))
def test_runs_come_twice_and_in_any_order(runs: list[tuple[int, int]], random: Random) -> None:
    model, everything, _ = sent(runs)
    ledger = Ledger(ORIGIN)
    again = [Run(r.plain, r.wire, r.plain_end - r.plain, r.size) for r in model.runs] * 2
    random.shuffle(again)
    for run in again:
        assert ledger.insert(Run(run.plain, run.wire, run.plain_end - run.plain, run.size))
    assert (ledger.plain_edge, ledger.wire_edge) == (model.plain_top, model.wire_top)
    assert (ledger.bytes_inserted, ledger.records_inserted) == (model.plain_top, len(everything.records)), "each once"
    for plain, wire in everything.pairs():
        assert ledger.wire_floor(plain) == wire and ledger.plain_floor(wire) == plain


@pytest.mark.parametrize(
    ("plain", "wire"),
    [
        (31, ORIGIN + 30 + OVERHEAD + 5),  # starts inside another record
        (29, ORIGIN + 3 * (10 + OVERHEAD)),  # right place on the wire, wrong one in plain space
        (5, ORIGIN - 1),
        (-1, ORIGIN + 500),
    ],
)
def test_contradictions_change_nothing(plain: int, wire: int) -> None:
    ledger = Ledger(ORIGIN)
    assert ledger.insert(Run(0, ORIGIN, 50, 10))
    before = (ledger.plain_top, ledger.wire_top, [(run.wire, run.wire_end, run.plain_end) for run in ledger.runs])
    assert not ledger.insert(Run(plain, wire, 10, 10))
    assert before == (ledger.plain_top, ledger.wire_top, [(r.wire, r.wire_end, r.plain_end) for r in ledger.runs])


def test_a_wire_offset_is_used_once() -> None:
    ledger = Ledger(ORIGIN)
    ledger.append(Run(0, ORIGIN, 50, 10))
    with pytest.raises(AssertionError):
        ledger.append(Run(0, ORIGIN, 50, 10))


def test_an_empty_final_record_counts_on_the_wire_alone() -> None:
    ledger = Ledger(ORIGIN)
    ledger.append(Run(0, ORIGIN, 50, 50))
    ledger.append(Run(50, ORIGIN + 72, 0, 64))
    assert (ledger.plain_top, ledger.wire_top) == (50, ORIGIN + 72 + OVERHEAD)
    assert ledger.plain_floor(ORIGIN + 72) == ledger.plain_floor(ledger.wire_top) == 50
    assert ledger.last_boundary(ledger.wire_top - 1) == ORIGIN + 72


def test_what_is_acknowledged_loses_its_bytes_and_then_its_place() -> None:
    ledger = Ledger(ORIGIN)
    count = 3 * ledger_module.RETIRED
    for number in range(count):
        ledger.append(Run(number * 5, ORIGIN + number * (5 + OVERHEAD), 5, 5, bytes(5 + OVERHEAD)))
    middle = ORIGIN + 700 * (5 + OVERHEAD)
    ledger.forget(middle)
    assert len(ledger.runs) == count - 700 + ledger_module.RETIRED
    assert {bool(run.blob) for run in ledger.runs if run.wire_end <= middle} == {False}
    assert {bool(run.blob) for run in ledger.runs if run.wire_end > middle} == {True}
    first = 700 - ledger_module.RETIRED
    assert ledger.plain_floor(middle - 1) == 699 * 5
    # What is asked of forgotten records is answered with the oldest that is known, which is acknowledged, too.
    assert ledger.plain_floor(ORIGIN) == first * 5 and ledger.wire_floor(3) == ORIGIN + first * (5 + OVERHEAD)
    assert ledger.wire_block(0, 10) is None and ledger.plain_block(ORIGIN, ORIGIN + 60) is None


def test_what_was_forgotten_is_not_counted_when_it_comes_again() -> None:
    ledger = Ledger(ORIGIN)
    count = 3 * ledger_module.RETIRED
    # two sizes in turn, for runs of one size would be joined
    sizes = [5 + number % 2 for number in range(count)]
    plain, wire = 0, ORIGIN
    for length in sizes:
        assert ledger.insert(Run(plain, wire, length, length))
        plain, wire = plain + length, wire + length + OVERHEAD
    ledger.forget(wire)
    assert ledger.wire_base > ORIGIN
    assert (ledger.bytes_inserted, ledger.records_inserted) == (sum(sizes), count)
    ledger.insert(Run(0, ORIGIN, 5, 5))
    assert (ledger.bytes_inserted, ledger.records_inserted) == (sum(sizes), count)


def test_a_hole_at_the_start_is_not_taken_for_something_forgotten() -> None:
    ledger = Ledger(ORIGIN)
    assert ledger.insert(Run(100, ORIGIN + 122, 10, 10))
    assert ledger.wire_floor(50) == ORIGIN and ledger.plain_floor(ORIGIN + 60) == 0


def test_holes_are_bounded() -> None:
    ledger = Ledger(ORIGIN)
    for number in range(ledger_module.MAX_RUNS):
        assert ledger.insert(Run(10 + number * 10, ORIGIN + 40 + number * 100, 5, 5)) or number
    assert len(ledger.runs) <= ledger_module.MAX_RUNS
    assert not ledger.insert(Run(3, ORIGIN + 3, 2, 2))


@given(st.integers(0, 1 << 40), st.integers(-(1 << 31) + 1, (1 << 31) - 1))
def test_unwrap(near: int, distance: int) -> None:
    assert unwrap((near + distance) & 0xFFFFFFFF, near) == near + distance


def test_records_that_continue_a_run_count_as_well() -> None:
    ledger = Ledger(138)
    assert ledger.insert(Run(0, 138, 200, 100))
    assert ledger.extend(200, 138 + 200 + 2 * OVERHEAD, 300, 100, 3)
    assert (ledger.bytes_inserted, ledger.records_inserted) == (500, 5)
