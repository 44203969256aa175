"""Numbers and tables for people."""

from __future__ import annotations

from collections.abc import Sequence


def size(count: float) -> str:
    """Bytes, as network tools count them: ``812 B``, ``1.4 kB``, ``2.0 GB``."""
    if count < 1000:
        return f"{count:.0f} B"
    for unit in ("kB", "MB", "GB", "TB", "PB"):
        count /= 1000
        # 999.96 would be shown as 1000.0
        if count < 999.95 or unit == "PB":
            break
    return f"{count:.1f} {unit}"


def age(seconds: float) -> str:
    """A time span in its two largest units: ``7s``, ``3m20s``, ``2h05m``, ``4d03h``."""
    whole = max(0, int(seconds))
    if whole < 60:
        return f"{whole}s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes}m{rest:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    return f"{hours // 24}d{hours % 24:02d}h"


def plural(count: int, noun: str) -> str:
    """``1 connection``, ``2 connections``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def names(many: Sequence[str], most: int = 10) -> str:
    """``a, b and 3 more``."""
    shown = ", ".join(many[:most])
    return f"{shown} and {len(many) - most} more" if len(many) > most else shown


def table(head: Sequence[str], rows: Sequence[Sequence[str]], right: Sequence[int] = ()) -> list[str]:
    """Aligned lines. Columns whose index is in `right` are aligned on the right."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(row: Sequence[str]) -> str:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return "  ".join(cells).rstrip()

    return [line(row) for row in (head, *rows)]
