"""The fragment buffer against a naive one: a dict of bytes by offset."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcencrypt.core.fragments import Fragments, Pool

ACTIONS = st.lists(
    st.tuples(st.sampled_from(("add", "extend", "drop")), st.integers(0, 120), st.integers(0, 40), st.integers(0, 255)),
    max_size=40,
)


def check(fragments: Fragments, model: dict[int, int]) -> None:
    assert fragments.size == len(model) and bool(fragments) == bool(model)
    for at in range(-1, 170):
        piece = fragments.around(at)
        if at not in model:
            assert piece is None
            continue
        assert piece is not None
        start, held = piece
        assert start <= at < start + len(held)
        assert bytes(held) == bytes(model[start + index] for index in range(len(held)))
        assert start - 1 not in model and start + len(held) not in model, "neighbours are joined"


@given(ACTIONS)
def test_any_order_and_overlap(actions: list[tuple[str, int, int, int]]) -> None:
    pool = Pool()
    fragments, model = Fragments(pool), dict[int, int]()
    for action, start, length, value in actions:
        data = bytes((value + index) & 255 for index in range(length))
        new = dict(enumerate(data, start))
        if action == "drop":
            fragments.drop(start, start + length)
            model = {at: byte for at, byte in model.items() if not start <= at < start + length}
        elif action == "add":
            assert fragments.add(start, data)
            model |= new
        else:
            piece = fragments.extend(start, data)
            possible = start - 1 in model and not any(at in model for at in range(start, start + length + 1))
            assert (piece is not None) == possible
            if piece is not None:
                model |= new
                assert piece[0] + len(piece[1]) == start + length
        check(fragments, model)
        assert pool.size == fragments.size
    fragments.clear()
    check(fragments, {})
    assert pool.size == 0


@given(ACTIONS)
def test_bounded(actions: list[tuple[str, int, int, int]]) -> None:
    pool = Pool(60)
    fragments, other = Fragments(pool), Fragments(pool)
    for action, start, length, _ in actions:
        if action == "drop":
            fragments.drop(start, start + length)
        else:
            held = fragments if action == "add" else other
            kept = held.add(start, bytes(length))
            assert not kept or not length or held.around(start) is not None
        assert pool.size == fragments.size + other.size <= 60


def test_what_comes_first_has_precedence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Fragments, "LIMIT", 100)
    fragments = Fragments()
    assert fragments.add(500, bytes(40)) and fragments.add(600, bytes(40))
    assert not fragments.add(700, bytes(40)), "nothing further on could give way"
    assert fragments.add(0, bytes(40))
    assert fragments.around(600) is None and fragments.around(500) is not None
    assert fragments.size == 80
    assert not fragments.add(0, bytes(101)) and fragments.size <= 100
