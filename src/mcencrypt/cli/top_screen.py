"""One frame of ``mcencrypt top``: two samples of a status, and what lies between them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from mcencrypt.cli import text
from mcencrypt.core.status import State

if TYPE_CHECKING:
    from mcencrypt.control.replies import Connection, Counters, Status

_STATES: Final[dict[str, str]] = {
    State.ENCRYPTED: "green", State.UNCONFIRMED: "yellow", State.HANDSHAKE: "yellow", State.CLOSING: "dim",
    State.PLAINTEXT: "bold red", State.HEALTH_CHECK: "dim",
}  # fmt: skip
#: Lines of a frame that are no connection: four above the table, its head and its foot, and one to spare.
_OTHER_LINES: Final = 8
#: The columns, and how wide the terminal has to be for each.
_COLUMNS: Final = {
    "PEER": 0, "STATE": 0, "AGE": 0, "OUT/s": 0, "IN/s": 0, "SENT": 120, "RECEIVED": 120, "RESENT": 100, "FORGED": 100,
    "IDENTITY": 0,
}  # fmt: skip
#: From how many columns on keys and names are shown whole.
_WHOLE_KEYS: Final = 160


@dataclass(frozen=True, slots=True)
class Sample:
    """A status as it was at `at` (seconds, monotonic)."""

    at: float
    status: Status


@dataclass(frozen=True, slots=True)
class Rates:
    """Bytes per second of one connection, or of all."""

    out: float = 0.0
    into: float = 0.0


def rates(before: Sample | None, now: Sample) -> tuple[Rates, list[Rates]]:
    """The rates of all encrypted connections together, and of each connection of `now`.

    A connection that was not there before counts from its own beginning.  Without a sample before, or with one of
    another daemon, all are 0.
    """
    connections = now.status["connections"]
    if before is None or before.status["pid"] != now.status["pid"] or now.at <= before.at:
        return Rates(), [Rates()] * len(connections)
    seconds = now.at - before.at
    old = {_key(one): one for one in before.status["connections"]}
    each = []
    for one in connections:
        was = old.get(_key(one))
        if was is None or was["age"] > one["age"] or was["state"] == State.HANDSHAKE:
            each.append(_rate(None, one, max(min(seconds, one["age"]), 0.001)))
        else:
            each.append(_rate(was, one, seconds))
    return _rate(before.status["totals"], now.status["totals"], seconds), each


def frame(before: Sample | None, now: Sample, height: int | None = None, width: int | None = None) -> RenderableType:
    """Everything on one screen of `height` lines and `width` columns (None: as many as it takes), the busiest first.

    Where it is narrow the numbers stay that a look is for, and keys are shortened.
    """
    status = now.status
    total, each = rates(before, now)
    connections = sorted(
        zip(status["connections"], each, strict=True),
        key=lambda pair: (-(pair[1].out + pair[1].into), pair[0]["peer"], pair[0]["local"]),
    )
    room = len(connections) if height is None else max(height - _OTHER_LINES, 1)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False)
    heads = [head for head, least in _COLUMNS.items() if width is None or width >= least]
    for head in heads:
        words = head in ("PEER", "IDENTITY", "STATE")
        table.add_column(
            "NAME OR KEY" if head == "IDENTITY" else head,
            no_wrap=True,
            overflow="ellipsis",
            justify="left" if words else "right",
            # numbers are never cut
            min_width=None if words else len(head),
        )
    brief = width is not None and width < _WHOLE_KEYS
    for one, rate in connections[:room]:
        cells = _cells(one, rate, brief)
        table.add_row(*(cells[head] for head in heads))
    parts: list[RenderableType] = [
        *_summary(status, total, width),
        Text(),
        table if connections else Text("no connections"),
    ]
    if len(connections) > room:
        parts.append(Text(f"and {len(connections) - room} more", style="dim"))
    return Group(*parts)


def waiting(problem: str, seconds: float) -> RenderableType:
    """What is shown while no daemon answers."""
    return Group(Text(f"no daemon answers, for {text.age(seconds)}", style="bold red"), Text(), _clean(problem))


def _cells(one: Connection, rate: Rates, brief: bool) -> dict[str, RenderableType]:
    name, identity = one["name"], one["identity"] or "-"
    return {
        "PEER": _clean(text.shorten(one["peer"], 24) if brief else one["peer"]),
        "STATE": Text(one["state"], style=_STATES.get(one["state"], "")),
        "AGE": text.age(one["age"]),
        "OUT/s": text.size(rate.out),
        "IN/s": text.size(rate.into),
        "SENT": text.size(one["bytes_out"]),
        "RECEIVED": text.size(one["bytes_in"]),
        "RESENT": str(one["retransmissions"]),
        "FORGED": Text(str(one["auth_failures"]), style="bold red" if one["auth_failures"] else ""),
        "IDENTITY": _clean((text.shorten(name, 16) if name else text.key(identity)) if brief else name or identity),
    }


def _summary(status: Status, total: Rates, width: int | None) -> Iterator[Text]:
    totals, queue = status["totals"], status["queue"]
    narrow = width is not None and width < _COLUMNS["SENT"]
    state = f"on ({status['mode']})" if status["enabled"] else "off, draining" if status["draining"] else "off"
    yield Text.assemble(
        ("mcencrypt is ", ""),
        (state, "bold green" if status["enabled"] else "bold red"),
        f"   {status['version']}, pid {status['pid']}, up {text.age(status['uptime'])}",
        f"   ports {', '.join(map(str, status['ports']))}",
        no_wrap=True, overflow="ellipsis",
    )  # fmt: skip
    counts = dict.fromkeys(_STATES, 0)
    for one in status["connections"]:
        counts[one["state"]] = counts.get(one["state"], 0) + 1
    line = Text("connections  ", no_wrap=True, overflow="ellipsis")
    for name, count in counts.items():
        if count or name == State.ENCRYPTED:
            line.append(f"{count} {name}   ", style=_STATES.get(name, "") if count else "")
    yield line
    yield Text.assemble(
        f"data         out {text.size(total.out)}/s   in {text.size(total.into)}/s",
        "" if narrow else f"   sent {text.size(totals['bytes_out'])}   received {text.size(totals['bytes_in'])}",
        f"   {totals['retransmissions']} resent   ",
        (f"{totals['auth_failures']} forged", "bold red" if totals["auth_failures"] else ""),
    )
    refused = sorted(status["refused"].items(), key=lambda item: (-item[1], item[0]))
    reasons = ", ".join(f"{reason} {count}" for reason, count in refused if count) or "nothing"
    lost = queue["dropped_kernel"] + queue["dropped_user"]
    queued = f"{queue['waiting']} waiting, {lost} dropped"
    queue_style = "red" if lost else ""
    yield Text.assemble(f"refused      {reasons}   queue  ", (queued, queue_style), no_wrap=True, overflow="ellipsis")


def _key(connection: Connection) -> tuple[str, str]:
    return connection["peer"], connection["local"]


def _rate(before: Counters | None, now: Counters, seconds: float) -> Rates:
    """Between two looks; None: from nothing."""
    sent, received = (before["bytes_out"], before["bytes_in"]) if before else (0, 0)
    return Rates(max(0, now["bytes_out"] - sent) / seconds, max(0, now["bytes_in"] - received) / seconds)


def _clean(words: str) -> Text:
    """Text without markup and control characters, whoever chose it."""
    return Text("".join(letter if letter.isprintable() else "?" for letter in words))
