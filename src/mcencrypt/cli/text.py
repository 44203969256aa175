"""Numbers and tables for people."""

from __future__ import annotations

import os
import shutil
import sys
import textwrap
from collections.abc import Collection, Iterable, Mapping, Sequence


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


def columns(environ: Mapping[str, str] = os.environ) -> int | None:
    """How many columns there are: of the terminal, or as ``COLUMNS`` says; None if nobody says, as in a pipe."""
    said = environ.get("COLUMNS", "")
    if said.isascii() and said.isdigit() and int(said):
        return int(said)
    if not sys.stdout.isatty():
        return None
    return shutil.get_terminal_size().columns


def shorten(words: str, most: int) -> str:
    """At most that many characters: the beginning and, of an address, its port."""
    if len(words) <= most:
        return words
    end = words[words.rindex(":") :] if ":" in words[-6:] else ""
    return words[: max(1, most - len(end) - 1)] + "…" + end


def key(base64: str) -> str:
    """The beginning of a public key: enough to tell one from others, too little to trust it by."""
    return base64[:12]


def fitting(
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    short: Sequence[Sequence[str]],
    leave: Iterable[Collection[str]],
    right: Collection[str],
    width: int | None,
) -> list[str]:
    """A table that fits `width` columns (None: any).

    If `rows` do not fit, `short` are shown, the same with keys shortened; then without the columns of the first set of
    `leave`, then without those of the next as well. If even that does not fit, the widest column is cut.
    """
    gone: set[str] = set()
    lines = _without(head, rows, gone, right)
    for more in ((), *leave):
        if width is None or max(map(len, lines)) <= width:
            return lines
        gone |= set(more)
        lines = _without(head, short, gone, right)
    if width is not None and (over := max(map(len, lines)) - width) > 0:
        widths = {at: max(len(row[at]) for row in short) for at, name in enumerate(head) if name not in gone}
        widest = max(widths, key=lambda at: widths[at])
        room = max(8, widths[widest] - over)
        cut = [(*row[:widest], shorten(row[widest], room), *row[widest + 1 :]) for row in short]
        lines = _without(head, cut, gone, right)
    return lines


def _without(
    head: Sequence[str], rows: Sequence[Sequence[str]], gone: Collection[str], right: Collection[str]
) -> list[str]:
    kept = [at for at, name in enumerate(head) if name not in gone]
    shown = [head[at] for at in kept]
    numbers = [at for at, name in enumerate(shown) if name in right]
    return table(shown, [[row[at] for at in kept] for row in rows], numbers)


def wrapped(label: str, words: str, width: int | None, indent: int = 13) -> list[str]:
    """``label        words``, as many lines as it takes; commands and addresses are not broken."""
    head = label.ljust(indent)
    if width is None:
        return [head + words]
    wrapper = textwrap.TextWrapper(
        max(width, 2 * indent), head, " " * indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(words) or [head.rstrip()]
