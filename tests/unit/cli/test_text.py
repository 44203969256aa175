"""Numbers for people."""

from __future__ import annotations

import pytest

from mcencrypt.cli import text


@pytest.mark.parametrize(
    ("count", "shown"),
    [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (999_940, "999.9 kB"), (999_960, "1.0 MB"), (2 * 10**9, "2.0 GB"),
     (10**18, "1000.0 PB")],
)  # fmt: skip
def test_bytes_for_people(count: int, shown: str) -> None:
    assert text.size(count) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(-1, "0s"), (59.9, "59s"), (60, "1m00s"), (3599, "59m59s"), (3600, "1h00m"), (86399, "23h59m"), (90000, "1d01h")],
)
def test_ages_for_people(seconds: float, shown: str) -> None:
    assert text.age(seconds) == shown
