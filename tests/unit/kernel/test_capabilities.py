"""A missing capability is one line that names it."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.capabilities import check_capabilities, effective


def status(folder: Path, mask: int) -> Path:
    file = folder / "status"
    file.write_text(f"Name:\tpython3\nCapPrm:\t{mask:016x}\nCapEff:\t{mask:016x}\n")
    return file


@pytest.mark.parametrize(
    ("mask", "named"),
    [
        (0, "CAP_NET_ADMIN and CAP_NET_RAW is missing"),
        (1 << 13, "CAP_NET_ADMIN is missing"),
        (1 << 12, "CAP_NET_RAW is missing"),
    ],
)
def test_what_is_missing_is_named(tmp_path: Path, mask: int, named: str) -> None:
    with pytest.raises(OperatorError, match=named) as caught:
        check_capabilities(status(tmp_path, mask))
    assert "cap_add" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_enough_or_not_known_is_taken(tmp_path: Path) -> None:
    check_capabilities(status(tmp_path, 1 << 12 | 1 << 13))
    check_capabilities(tmp_path / "none")
    (tmp_path / "odd").write_text("CapEff:\n")
    assert effective(tmp_path / "odd") is None
