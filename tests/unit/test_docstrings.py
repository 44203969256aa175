"""One dialect: docstrings are prose, and attributes are documented by comments above them (CONTRIBUTING.md)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("src", "lab", "tests", "benchmarks", "tools")
#: Sections of Google's and NumPy's dialects, and Sphinx's fields.
_SECTION = re.compile(
    r"^ *(?:(?:Args|Arguments|Parameters|Attributes|Returns|Yields|Raises|Examples?|Notes?):? *$"
    r"|:(?:param|type|returns?|rtype|raises|ivar|cvar|yields?)\b[^:]*:)",
    re.MULTILINE,
)


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, text) of every docstring."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text is not None:
                yield node.body[0].lineno, text


def strings_below_attributes(tree: ast.AST) -> Iterator[int]:
    """Lines of strings that stand alone, and not first: documentation that nobody reads."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        for one in body[1:] if isinstance(body, list) else ():
            if isinstance(one, ast.Expr) and isinstance(one.value, ast.Constant) and isinstance(one.value.value, str):
                yield one.lineno


def faults(source: str) -> list[str]:
    tree = ast.parse(source)
    found = [
        f"{line}: a section in a docstring: write a sentence"
        for line, text in docstrings(tree)
        if _SECTION.search(text)
    ]
    return found + [
        f"{line}: a string below an attribute: write a comment `#:` above" for line in strings_below_attributes(tree)
    ]


@pytest.mark.parametrize("folder", FOLDERS)
def test_docstrings_are_of_one_dialect(folder: str) -> None:
    wrong = [
        f"{path.relative_to(ROOT)}:{fault}"
        for path in (ROOT / folder).rglob("*.py")
        for fault in faults(path.read_text())
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ('def f(x):\n    """Does it.\n\n    Args:\n        x: what.\n    """\n', 1),
        ('def f(x):\n    """Does it.\n\n    :raises OSError: sometimes.\n    """\n', 1),
        ('def f(x):\n    """Does it.\n\n    Returns\n    -------\n    """\n', 1),
        ('class A:\n    """It."""\n\n    x: int\n    """Seconds."""\n', 1),
        ('class A:\n    """It."""\n\n    #: Seconds.\n    x: int\n', 0),
        (
            'def f(x):\n    """Returns: nothing. Raises OSError if `x` is 0, and then\n    returns nothing.\n    """\n',
            0,
        ),
    ],
)
def test_other_dialects_are_found(source: str, expected: int) -> None:
    assert len(faults(source)) == expected
