"""Figures as bars in an SVG: one panel a figure, one bar a contender, a line for the spread."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from html import escape

_WIDTH, _ROW, _LEFT, _BAR = 860, 20, 270, 440


def bars(found: Mapping[tuple[str, str], list[float]], figures: Mapping[str, bool]) -> str:
    """The whole drawing. `figures`: what was measured, and whether more is better."""
    names = list(dict.fromkeys(name for name, _ in found))
    parts: list[str] = []
    y = 10
    for figure, more in figures.items():
        shown = [name for name in names if found.get((name, figure))]
        if not shown:
            continue
        top = max(max(found[name, figure]) for name in shown)
        better = "more is better" if more else "less is better"
        parts.append(f'<text x="10" y="{y + 14}" font-weight="bold">{escape(figure)} ({better})</text>')
        y += 24
        for name in shown:
            values = found[name, figure]
            middle = statistics.median(values)
            low, high = (_LEFT + _BAR * value / top for value in (min(values), max(values)))
            long = _BAR * middle / top
            colour = "#1f6feb" if name.startswith("mcencrypt") else "#8c959f"
            parts += [
                f'<text x="{_LEFT - 8}" y="{y + 13}" text-anchor="end">{escape(name)}</text>',
                f'<rect x="{_LEFT}" y="{y + 2}" width="{long:.1f}" height="{_ROW - 6}" fill="{colour}"/>',
                f'<line x1="{low:.1f}" x2="{high:.1f}" y1="{y + 9}" y2="{y + 9}" stroke="black"/>',
                f'<text x="{high + 6:.1f}" y="{y + 13}">{middle:.3g}</text>',
            ]
            y += _ROW
        y += 12
    size = f'width="{_WIDTH}" height="{y}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect {size} fill="white"/>', *parts, "</svg>\n"])
