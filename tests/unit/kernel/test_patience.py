"""How long the kernel keeps what is half open."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcencrypt.kernel.patience import half_open_seconds


@pytest.mark.parametrize(("text", "seconds"), [("0\n", 1), ("1\n", 3), ("2\n", 7), ("5\n", 63), ("255\n", 2**31 - 1)])
def test_each_repetition_waits_twice_as_long(tmp_path: Path, text: str, seconds: float) -> None:
    (tmp_path / "file").write_text(text)
    assert half_open_seconds(tmp_path / "file") == seconds


def test_what_cannot_be_read_bounds_nothing(tmp_path: Path) -> None:
    assert half_open_seconds(tmp_path / "none") == float("inf")
    (tmp_path / "file").write_text("many\n")
    assert half_open_seconds(tmp_path / "file") == float("inf")


def test_this_kernel_has_it() -> None:
    assert 1 <= half_open_seconds() < float("inf")
