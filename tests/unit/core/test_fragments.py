"""The fragment buffer against a naive one: a dict of bytes by offset; what it costs in memory and in work."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcencrypt.core.fragments import PAGE, PAGE_MEMORY, SPAN_MEMORY, Fragments, Pool

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(("add", "drop")),
        st.one_of(st.integers(0, 120), st.integers(PAGE - 60, PAGE + 60)),
        st.one_of(st.integers(0, 40), st.just(2 * PAGE)),
        st.integers(0, 255),
    ),
    max_size=40,
)


def spans_of(model: dict[int, int]) -> list[tuple[int, int]]:
    spans: list[tuple[int, int]] = []
    for at in sorted(model):
        if spans and spans[-1][1] == at:
            spans[-1] = (spans[-1][0], at + 1)
        else:
            spans.append((at, at + 1))
    return spans


def check(fragments: Fragments, model: dict[int, int]) -> None:
    spans = spans_of(model)
    assert bool(fragments) == bool(model)
    pages = {at // PAGE for at in model}
    assert fragments.memory == len(pages) * PAGE_MEMORY + len(spans) * SPAN_MEMORY, "a page or span too many"
    for start, end in spans:
        assert fragments.read(start, end) == bytes(model[at] for at in range(start, end))
        for at in (start, (start + end) // 2, end - 1):
            assert fragments.span(at) == (start, end) and fragments.reach(at) == end
        assert fragments.span(start - 1) is None and fragments.span(end) is None
        assert fragments.reach(start - 1) == fragments.reach(end) == -1
        for at in {start, end - 2, (start // PAGE + 1) * PAGE - 1} & set(range(start, end - 1)):
            assert fragments.u16(at) == int.from_bytes(fragments.read(at, at + 2), "big")


@given(ACTIONS)
def test_any_order_and_overlap(actions: list[tuple[str, int, int, int]]) -> None:
    pool = Pool()
    fragments, model = Fragments(pool), dict[int, int]()
    for action, start, length, value in actions:
        if action == "drop":
            fragments.drop(start, start + length)
            model = {at: byte for at, byte in model.items() if not start <= at < start + length}
        else:
            data = bytes((value + index) & 255 for index in range(length))
            assert fragments.add(start, data)
            model |= dict(enumerate(data, start))
        check(fragments, model)
        assert pool.memory == fragments.memory
    fragments.clear()
    check(fragments, {})
    assert pool.memory == 0


@given(ACTIONS, st.integers(1, 6))
def test_bounded(actions: list[tuple[str, int, int, int]], room: int) -> None:
    pool = Pool(room * (PAGE_MEMORY + SPAN_MEMORY))
    both = Fragments(pool), Fragments(pool)
    for index, (action, start, length, _) in enumerate(actions):
        held = both[index % 3 == 0]
        if action == "drop":
            held.drop(start, start + length)
        elif held.add(start, bytes(length)) and length:
            span = held.span(start)
            assert span is not None and span[1] >= start + length
        assert pool.memory == both[0].memory + both[1].memory
        # What is forgotten in the middle leaves two ends behind.
        assert pool.memory <= pool.limit + SPAN_MEMORY * index


def test_what_comes_first_has_precedence() -> None:
    fragments = Fragments(limit=4 * PAGE_MEMORY)
    assert all(fragments.add(number * PAGE, bytes(40)) for number in (5, 6, 7))
    assert not fragments.add(8 * PAGE, bytes(PAGE)), "nothing further on could give way"
    assert fragments.add(0, bytes(40))
    assert fragments.span(7 * PAGE) is None and fragments.span(5 * PAGE) is not None
    assert not fragments.add(PAGE, bytes(5 * PAGE)) and fragments.memory <= 4 * PAGE_MEMORY


def test_a_greedy_flow_keeps_nobody_from_its_share() -> None:
    pool = Pool(64 * PAGE_MEMORY)
    greedy = [Fragments(pool) for _ in range(20)]
    for number in range(2000):
        greedy[number % 20].add(Random(number).randrange(1 << 31), b"x" * 1400)
    assert pool.memory > 0.8 * pool.limit
    late = Fragments(pool)
    assert late.add(0, bytes(PAGE)) and late.read(0, PAGE) == bytes(PAGE)
    share = late.memory
    while late.add(share, bytes(PAGE)) and late.memory > share:
        share = late.memory
    assert pool.memory <= pool.limit
    assert late.memory * 4 >= pool.limit / 21, "about what there is for each"
    assert all(holder.memory for holder in greedy), "nor do the others lose all"


@pytest.mark.parametrize(("length", "apart"), [(1, 1), (1, 3), (1, PAGE + 1), (700, 700), (1400, 3000), (60000, 60000)])
def test_what_is_counted_is_what_it_takes(length: int, apart: int) -> None:
    """Measured by the allocator, however the pieces lie."""
    gc.collect()
    tracemalloc.start()
    try:
        fragments = Fragments()
        data = bytes(length)
        before = tracemalloc.get_traced_memory()[0]
        for number in range(3000):
            if not fragments.add(number * apart, data):
                break
        real = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert fragments.memory <= Fragments.LIMIT
    # The interpreter's own caches make small amounts inexact.
    assert real <= fragments.memory + 4096, "counts less than it takes"
    assert fragments.memory <= 1.4 * real + 4096, "counts more than it takes"


def operations(action: object, *arguments: object) -> int:
    """Python lines run while `action` runs: work that no busy machine changes."""
    count = 0

    def trace(frame: object, event: str, argument: object) -> object:
        nonlocal count
        count += event == "line"
        return trace

    before = sys.gettrace()
    sys.settrace(trace)  # type: ignore[arg-type]
    try:
        action(*arguments)  # type: ignore[operator]
    finally:
        sys.settrace(before)
    return count


@pytest.mark.parametrize("apart", [1, 2, 100, 5000])
def test_a_piece_costs_the_same_however_many_wait(apart: int) -> None:
    costs = []
    for waiting in (100, 400):
        fragments = Fragments()
        for number in range(waiting):
            fragments.add(1_000_000 - number * apart, b"x")  # the worst order for what joins neighbours
        costs.append(
            max(
                operations(fragments.add, 1_000_000 - waiting * apart, b"y"),
                operations(fragments.add, 1_000_001, b"y"),
                operations(fragments.span, 1_000_000),
                operations(fragments.drop, 999_990, 999_992),
            )
        )
    assert costs[1] <= costs[0] + 3, costs
