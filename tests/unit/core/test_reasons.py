"""The vocabulary of refusals: what is counted can be looked up."""

from __future__ import annotations

import re
from pathlib import Path

from mcencrypt.core.reasons import REASONS

OPERATIONS = Path(__file__).parents[3] / "docs" / "operations.md"


def test_every_reason_has_its_line_in_the_documentation() -> None:
    rows = [line.split("|")[1] for line in OPERATIONS.read_text().splitlines() if line.startswith("| `")]
    assert set(REASONS) <= set(re.findall(r"`([a-z-]+)`", " ".join(rows)))


def test_reasons_are_fit_to_be_labels() -> None:
    assert len(set(REASONS)) == len(REASONS)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", reason) for reason in REASONS)
