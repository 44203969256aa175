"""``mcencrypt verify``."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from mcencrypt.cli import text
from mcencrypt.cli.settings import Settings, command, pass_settings

if TYPE_CHECKING:
    from mcencrypt.control.replies import Status
    from mcencrypt.reading.judge import Judged, Outcome
    from mcencrypt.store.config import Config


@command("mcencrypt verify\nmcencrypt verify --seconds 60 --strict && echo all of it was encrypted")
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 86400),
    default=10.0,
    show_default=True,
    metavar="N",
    help="How long to watch; Ctrl-C ends it earlier.",
)
@click.option(
    "--port",
    "ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    metavar="PORT",
    help="Watch this port; may be repeated.  [default: the daemon's, else the configured ones]",
)
@click.option("--strict", is_flag=True, help="Fail also for peers in allow_plaintext, and if packets were missed.")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
@pass_settings
def verify(settings: Settings, seconds: float, ports: tuple[int, ...], strict: bool, as_json: bool) -> int:
    """Watch the wire and prove, packet by packet, that all P2P traffic is encrypted.

    Captures the P2P ports on every interface but loopback, without the daemon's help and without keys. Every byte must
    be handshake or record; that the records are authentic is what the daemon counts, which is shown beside it. Exit
    status 0 only if there was traffic and all of it was encrypted.
    """
    from mcencrypt.doctor.netns import enter
    from mcencrypt.kernel.links import read_addresses
    from mcencrypt.reading.judge import Judge, watch
    from mcencrypt.reading.tap import Tap

    config = settings.load()
    before = _status(config)
    enter(before["pid"] if before else None, config.netns)
    watched = ports or (tuple(before["ports"]) if before else config.p2p_ports())
    tap = Tap(watched)
    try:
        with _interruptible() as enough:
            judge = Judge(watched, read_addresses(), config.allow_plaintext)
            outcome = watch(judge, tap, seconds, time.monotonic, enough)
    finally:
        tap.close()
    outcome.authentic = growth(before, _status(config))
    passed = outcome.passes(strict)
    click.echo(json.dumps(as_dict(outcome, passed), indent=2) if as_json else "\n".join(describe(outcome, passed)))
    return 0 if passed else 1


@contextlib.contextmanager
def _interruptible() -> Iterator[int]:
    """A descriptor that becomes readable with SIGINT, which then interrupts nothing: a packet is taken in whole."""
    reading, writing = os.pipe()
    os.set_blocking(writing, False)
    handler = signal.signal(signal.SIGINT, lambda *_: None)
    wakeup = signal.set_wakeup_fd(writing)
    try:
        yield reading
    finally:
        signal.set_wakeup_fd(wakeup)
        signal.signal(signal.SIGINT, handler)
        os.close(reading)
        os.close(writing)


def _status(config: Config) -> Status | None:
    from mcencrypt.control.client import NoDaemonError, request

    try:
        return request(config.run_dir, "status")
    except NoDaemonError:
        return None


def growth(before: Status | None, after: Status | None) -> dict[str, int] | None:
    """How the daemon's totals grew between two looks; None without both, or if it was restarted."""
    if before is None or after is None or before["pid"] != after["pid"]:
        return None
    old, new = before["totals"], after["totals"]
    return {
        "records_in": new["records_in"] - old["records_in"],
        "records_out": new["records_out"] - old["records_out"],
        "auth_failures": new["auth_failures"] - old["auth_failures"],
    }


def as_dict(outcome: Outcome, passed: bool) -> dict[str, Any]:
    """The outcome for programs."""
    return {
        "verdict": outcome.verdict,
        "passed": passed,
        "complete": outcome.complete,
        "seconds": round(outcome.seconds, 3),
        "ports": list(outcome.ports),
        "packets": outcome.packets,
        "packets_dropped": outcome.dropped,
        "packets_beyond_limits": outcome.beyond,
        "missing_bytes": outcome.missing,
        "packets_unread": outcome.oddities,
        "counts": {kind.name.lower(): count for kind, count in outcome.counts.items()},
        "handshake_messages": outcome.handshakes,
        "records": outcome.records,
        "mid_stream": outcome.mid_stream,
        "daemon": outcome.authentic,
        "connections": [{**vars(one), "kind": one.kind.name.lower()} for one in outcome.connections],
    }


def describe(outcome: Outcome, passed: bool) -> list[str]:
    """The outcome for a terminal."""
    from mcencrypt.reading.judge import Kind

    counts = outcome.counts
    lines = [
        f"watched port {', '.join(map(str, outcome.ports))} for {outcome.seconds:.1f} s: "
        f"{text.plural(outcome.packets, 'packet')}, {text.plural(outcome.handshakes, 'handshake message')}, "
        f"{text.plural(outcome.records, 'record')}"
    ]
    lines += [f"  {_line(one)}" for one in outcome.connections]
    named = sum(1 for _ in outcome.connections)
    total = sum(counts.values()) - counts[Kind.SILENT]
    if total > named:
        lines.append(f"  ... and {total - named} more")
    if outcome.mid_stream:
        lines.append(
            f"{text.plural(outcome.mid_stream, 'connection')} began before: record boundaries were found on the way, "
            "from where on all headers fit"
        )
    lines += _missed(outcome)
    lines.append(_authenticity(outcome))
    return [*lines, f"verdict: {_verdict(outcome, passed)}"]


def _line(one: Judged) -> str:
    parts = [f"{one.local} - {one.peer}  {one.kind.value}"]
    if one.records:
        parts.append(f"{text.plural(one.records, 'record')} with {text.size(one.encrypted_bytes)}")
    if one.unencrypted_bytes:
        what = f": {one.detail}" if one.detail else ""
        parts.append(f"{text.size(one.unencrypted_bytes)} neither handshake nor record{what}")
    if one.missing_bytes:
        parts.append(f"{text.size(one.missing_bytes)} not captured, or before the first record boundary")
    if one.forwarded:
        parts.append("passes this host: another network namespace's, or another host's")
    return ", ".join(parts)


def _missed(outcome: Outcome) -> list[str]:
    lines = [f"not read: {reason}: {count}" for reason, count in outcome.oddities.items()]
    if outcome.dropped:
        lines.append(f"{text.plural(outcome.dropped, 'packet')} passed too fast to be looked at")
    if outcome.beyond:
        lines.append(f"{text.plural(outcome.beyond, 'packet')} belonged to more connections than can be judged at once")
    return lines


def _authenticity(outcome: Outcome) -> str:
    grown = outcome.authentic
    if grown is None:
        return "authenticity: not known, no daemon answers (or it was restarted); what the wire shows is framing"
    return (
        f"authenticity: meanwhile the daemon sealed {text.plural(grown['records_out'], 'record')}, opened "
        f"{grown['records_in']}, and refused {grown['auth_failures']} as not authentic"
    )


def _verdict(outcome: Outcome, passed: bool) -> str:
    from mcencrypt.reading.judge import Kind

    counts = outcome.counts
    if outcome.verdict == "plaintext":
        bad = counts[Kind.PLAINTEXT] + counts[Kind.UNKNOWN]
        return f"NOT ENCRYPTED: {text.plural(bad, 'connection')} of {sum(counts.values())}"
    if outcome.verdict == "nothing seen":
        return "nothing seen: no data passed, so nothing is proven; watch longer (--seconds), or look at the ports"
    if outcome.verdict != "encrypted":
        return "nothing encrypted seen: the only data was of peers that allow_plaintext exempts"
    told = "encrypted: every byte was handshake or record"
    if not outcome.complete:
        told = "encrypted as far as it was captured"
    if counts[Kind.ALLOWED]:
        told += f"; {text.plural(counts[Kind.ALLOWED], 'connection')} in plaintext, as allow_plaintext permits"
    return told if passed else f"{told} (not enough for --strict)"
