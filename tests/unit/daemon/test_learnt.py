"""What is kept of paths for the next daemon."""

from __future__ import annotations

from pathlib import Path as File

import pytest

from mcencrypt.core.addresses import Place
from mcencrypt.core.paths import REMEMBERED, News
from mcencrypt.daemon import learnt
from mcencrypt.daemon.learnt import FILE_NAME, Learnt

NOW = 5000.0
FOUR = Place(b"\x0a\0\0\1", 2)
SIX = Place(bytes(15) + b"\1", 3)


def news(path: int, age: float = 0) -> News:
    return News(path, path - 22, NOW + REMEMBERED - age)


def left(run_dir: File, now: float = NOW) -> list[tuple[Place, News]]:
    return Learnt(run_dir).remains(now)


def test_the_next_daemon_finds_it_the_oldest_first(tmp_path: File) -> None:
    first = Learnt(tmp_path)
    assert first.remains(NOW) == []
    first.on_news(FOUR, news(1400, 10))
    first.on_news(SIX, news(1400, 5))
    first.on_news(FOUR, news(1300))
    first.close()
    assert left(tmp_path) == [(SIX, news(1400, 5)), (FOUR, news(1300))]
    assert left(tmp_path) == [(SIX, news(1400, 5)), (FOUR, news(1300))], "and the one after that"


def test_what_the_kernel_has_forgotten_is_nothing(tmp_path: File) -> None:
    first = Learnt(tmp_path)
    first.on_news(FOUR, news(1400, 10))
    first.on_news(SIX, news(1400))
    assert left(tmp_path, NOW + REMEMBERED - 5) == [(SIX, news(1400))]


def test_a_kernel_that_has_begun_anew_has_forgotten_all(tmp_path: File) -> None:
    Learnt(tmp_path).on_news(FOUR, news(1400))
    assert left(tmp_path, 10.0) == []


def test_a_file_of_nonsense_is_nothing(tmp_path: File) -> None:
    Learnt(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(b"\x04" * (tmp_path / FILE_NAME).stat().st_size)
    assert left(tmp_path) == []


def test_the_oldest_give_way(tmp_path: File, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(learnt, "CAPACITY", 3)
    first = Learnt(tmp_path)
    paths = [FOUR._replace(peer=bytes((10, 0, 1, number))) for number in range(5)]
    for number, path in enumerate(paths):
        first.on_news(path, news(1400, 100 - number))
    assert [path for path, _ in left(tmp_path)] == paths[2:]
