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
    State.PLAINTEXT: "bold red",
}  # fmt: skip
#: Lines of a frame that are no connection: four above the table, its head and its foot, and one to spare.
_OTHER_LINES: Final = 8


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


def frame(before: Sample | None, now: Sample, height: int | None = None) -> RenderableType:
    """Everything on one screen of `height` lines (None: as many as it takes), the busiest connections first."""
    status = now.status
    total, each = rates(before, now)
    connections = sorted(
        zip(status["connections"], each, strict=True),
        key=lambda pair: (-(pair[1].out + pair[1].into), pair[0]["peer"], pair[0]["local"]),
    )
    room = len(connections) if height is None else max(height - _OTHER_LINES, 1)
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1), pad_edge=False, show_edge=False)
    for head in ("PEER", "NAME OR IDENTITY", "STATE"):
        table.add_column(head, no_wrap=True, overflow="ellipsis")
    for head in ("AGE", "OUT/s", "IN/s", "SENT", "RECEIVED", "RESENT", "FORGED"):
        table.add_column(head, no_wrap=True, justify="right")
    for one, rate in connections[:room]:
        table.add_row(
            _clean(one["peer"]),
            _clean(one["name"] or one["identity"] or "-"),
            Text(one["state"], style=_STATES.get(one["state"], "")),
            text.age(one["age"]),
            text.size(rate.out),
            text.size(rate.into),
            text.size(one["bytes_out"]),
            text.size(one["bytes_in"]),
            str(one["retransmissions"]),
            Text(str(one["auth_failures"]), style="bold red" if one["auth_failures"] else ""),
        )
    parts: list[RenderableType] = [*_summary(status, total), Text(), table if connections else Text("no connections")]
    if len(connections) > room:
        parts.append(Text(f"and {len(connections) - room} more", style="dim"))
    return Group(*parts)


def waiting(problem: str, seconds: float) -> RenderableType:
    """What is shown while no daemon answers."""
    return Group(Text(f"no daemon answers, for {text.age(seconds)}", style="bold red"), Text(), _clean(problem))


def _summary(status: Status, total: Rates) -> Iterator[Text]:
    totals, queue = status["totals"], status["queue"]
    state = f"on ({status['mode']})" if status["enabled"] else "off, draining" if status["draining"] else "off"
    yield Text.assemble(
        ("mcencrypt is ", ""),
        (state, "bold green" if status["enabled"] else "bold red"),
        f"   {status['version']}, pid {status['pid']}, up {text.age(status['uptime'])}",
        f"   ports {', '.join(map(str, status['ports']))}",
    )
    counts = dict.fromkeys(_STATES, 0)
    for one in status["connections"]:
        counts[one["state"]] = counts.get(one["state"], 0) + 1
    line = Text("connections  ")
    for name, count in counts.items():
        if count or name == State.ENCRYPTED:
            line.append(f"{count} {name}   ", style=_STATES.get(name, "") if count else "")
    yield line
    yield Text.assemble(
        f"data         out {text.size(total.out)}/s   in {text.size(total.into)}/s",
        f"   sent {text.size(totals['bytes_out'])}   received {text.size(totals['bytes_in'])}",
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
