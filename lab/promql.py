"""Which time series an expression in PromQL asks for: enough of the language to check dashboards and alert rules."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

#: Labels that Prometheus itself adds to what it scrapes.
ADDED: Final = frozenset({"job", "instance"})
#: Metrics that Prometheus itself makes of each scrape.
OWN: Final = frozenset({"up"})

_SELECTOR = re.compile(r"([A-Za-z_:][A-Za-z0-9_:]*)\s*(?:\{([^}]*)\})?(\s*\()?")
_MATCHER = re.compile(r'\s*([A-Za-z_]\w*)\s*(=~|!~|!=|=)\s*"((?:[^"\\]|\\.)*)"\s*,?')
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
_WORDS = frozenset({"and", "or", "unless", "bool", "by", "without", "on", "ignoring"})


class Selector(NamedTuple):
    """``metric{label="value", ...}``: matchers are (label, operator, value)."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...]


def selectors(expression: str) -> list[Selector]:
    """The selectors in an expression, as they stand there.

    Raises ValueError for matchers that cannot be read.
    """
    text = re.sub(r"\[[^\]]*\]|\boffset\s+\w+", "", _GROUPING.sub("", expression))
    found = []
    for name, inside, call in _SELECTOR.findall(text):
        if not call and name not in _WORDS:
            found.append(Selector(name, tuple(_matchers(inside))))
    return found


def unmet(expression: str, series: Iterable[tuple[str, dict[str, str]]]) -> list[str]:
    """What an expression asks for that none of the `series` (name and labels) would answer."""
    known = list(series)
    return [
        f"{selector.metric}{selector.matchers or ''}"
        for selector in selectors(expression)
        if selector.metric not in OWN
        and not any(name == selector.metric and _fits(labels, selector) for name, labels in known)
    ]


def _matchers(inside: str) -> Iterator[tuple[str, str, str]]:
    at = 0
    while at < len(inside.rstrip()):
        found = _MATCHER.match(inside, at)
        if found is None:
            raise ValueError(f"not a label matcher: {inside[at:]!r}")
        yield found.group(1), found.group(2), found.group(3)
        at = found.end()


def _fits(labels: dict[str, str], selector: Selector) -> bool:
    return all(_meets(labels.get(name), operator, value) for name, operator, value in selector.matchers
               if name not in ADDED)  # fmt: skip


def _meets(have: str | None, operator: str, value: str) -> bool:
    if have is None:
        return False
    met = re.fullmatch(value, have) is not None if "~" in operator else have == value
    return met != operator.startswith("!")
