"""Figures as SVG: bars with their spread, one panel a figure; and curves over the size of a network."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
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


#: Points of a curve, and of what was measured: size and value.
Points = Sequence[tuple[float, float]]
_PANEL, _HEIGHT, _MARGIN = 400, 240, 50
_COLOURS = ("#1f6feb", "#bc4c00", "#8c959f")


class _Panel:
    """One drawing of several, both axes logarithmic."""

    def __init__(self, number: int, drawn: Mapping[str, tuple[Points, Points]]) -> None:
        self.left, self.top = number % 2 * _PANEL + _MARGIN, number // 2 * (_HEIGHT + _MARGIN) + 40
        self.wide, self.high = _PANEL - _MARGIN - 30, _HEIGHT - 40
        points = [point for curve, _ in drawn.values() for point in curve]
        self.sizes = sorted({size for size, _ in points})
        self.decades = max(1, math.ceil(math.log10(max(value for _, value in points))))

    def place(self, size: float, value: float) -> tuple[float, float]:
        """Where a point is; what is less than 1 is drawn as 1."""
        across = math.log10(size / self.sizes[0]) / math.log10(self.sizes[-1] / self.sizes[0])
        up = math.log10(max(value, 1.0)) / self.decades
        return self.left + self.wide * across, self.top + self.high * (1 - up)

    def axes(self) -> Iterator[str]:
        """Lines and figures of both."""
        for decade in range(self.decades + 1):
            x, y = self.place(self.sizes[0], 10.0**decade)
            yield f'<line x1="{x}" x2="{x + self.wide}" y1="{y:.1f}" y2="{y:.1f}" stroke="#d0d7de"/>'
            yield f'<text x="{x - 6}" y="{y + 4:.1f}" text-anchor="end">{_short(10**decade)}</text>'
        for size in self.sizes:
            if size == self.sizes[0] or math.log10(size) % 1 == 0:
                x, y = self.place(size, 1.0)
                yield f'<text x="{x:.1f}" y="{y + 16:.1f}" text-anchor="middle">{size:g}</text>'


def curves(panels: Mapping[str, Mapping[str, tuple[Points, Points]]]) -> str:
    """The whole drawing: for each panel curves by name, each with the points that were measured."""
    parts: list[str] = []
    for number, (title, drawn) in enumerate(panels.items()):
        panel = _Panel(number, drawn)
        parts.append(f'<text x="{panel.left}" y="{panel.top - 10}" font-weight="bold">{escape(title)}</text>')
        parts += panel.axes()
        for row, ((name, (curve, measured)), colour) in enumerate(zip(drawn.items(), _COLOURS, strict=False)):
            line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (panel.place(*point) for point in curve))
            parts.append(f'<polyline points="{line}" fill="none" stroke="{colour}" stroke-width="2"/>')
            for x, y in (panel.place(*point) for point in measured):
                parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>')
            parts.append(
                f'<text x="{panel.left + 8}" y="{panel.top + 14 + 15 * row}" fill="{colour}">{escape(name)}</text>'
            )
    height = math.ceil(len(panels) / 2) * (_HEIGHT + _MARGIN) + 40
    size = f'width="{2 * _PANEL}" height="{height}"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">'
    return "\n".join([head, f'<rect {size} fill="white"/>', *parts, "</svg>\n"])


def _short(number: int) -> str:
    return f"{number // 1_000_000}M" if number >= 1_000_000 else f"{number // 1000}k" if number >= 1000 else str(number)
