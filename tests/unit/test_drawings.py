"""Drawings in the documents are what the code's tables say."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def tool() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "tools/drawings"))


def test_the_design_has_each_drawing_as_the_code_has_its_table(tool: dict[str, Any]) -> None:
    text = (ROOT / "docs/design.md").read_text()
    for name in tool["DRAWINGS"]:
        assert f"<!-- drawing {name} -->" in text
    assert tool["drawn"](text) == text, "run tools/drawings"


def test_a_move_that_the_table_has_not_is_drawn_over(tool: dict[str, Any]) -> None:
    text = "a\n<!-- drawing switch -->\n    off --> heaven\n<!-- end of drawing -->\nb\n"
    drawn = tool["drawn"](text)
    assert "heaven" not in drawn
    assert drawn.startswith("a\n") and drawn.endswith("\nb\n") and "off --> on: on / " in drawn
