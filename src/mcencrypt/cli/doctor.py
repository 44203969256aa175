"""``mcencrypt doctor``."""

from __future__ import annotations

import functools
import json
import textwrap
from dataclasses import replace
from typing import TYPE_CHECKING

import click

from mcencrypt.cli import text
from mcencrypt.cli.settings import Settings, command, pass_settings

if TYPE_CHECKING:
    from pathlib import Path

    from mcencrypt.control.replies import Probed
    from mcencrypt.core.handshake import CarrierWord
    from mcencrypt.doctor.case import Case
    from mcencrypt.doctor.checks import Topic

#: Columns where nobody says how many there are.
_WIDTH = 110


@command(
    "mcencrypt doctor\n"
    "mcencrypt doctor node2.example:7331\n"
    "mcencrypt doctor --json | jq '.findings[] | select(.severity == \"problem\")'"
)
@click.argument("peer", metavar="[PEER[:PORT]]", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
@click.option("--quiet", is_flag=True, help="Leave out what is as it should be.")
@pass_settings
def doctor(settings: Settings, peer: str | None, as_json: bool, quiet: bool) -> int:
    """Look for what keeps connections from being made or encrypted, and say what to do about it.

    With a PEER, find out what is on the path to it: the daemon sends it a handshake in a SYN, and one in a stream,
    which relays carry; both end before the application there notices, if encryption is required there. Single packets
    try whether the path carries data in SYNs, and packets of full size. Then only what is wrong is shown of this host.

    Works with and without a running daemon. Without root it says what it could not see. It changes nothing, except that
    without a daemon it tries queue and rules for an instant. Exit status 1 if there is at least one PROBLEM.
    """
    from mcencrypt.doctor.checks import examine, examine_peer, worst
    from mcencrypt.doctor.finding import Severity

    asked = _parse(peer)
    case = open_case(settings)
    topics = list(examine(case))
    about = examine_peer(case, *asked, functools.partial(_ask, case.config.run_dir)) if asked else []
    if as_json:
        click.echo(json.dumps(as_dict([*topics, *about]), indent=2))
    else:
        lowest = Severity.NOTE if quiet else Severity.OK
        shown = [topic.above(Severity.WARNING) for topic in topics] if about else topics
        click.echo("\n".join(describe([*shown, *about], lowest)))
    topics += about
    return 1 if worst(topics) is Severity.PROBLEM else 0


def _ask(
    run_dir: Path, address: str, port: int, key_id: str | None = None, carrier: CarrierWord = "syn", seconds: float = 0
) -> Probed:
    from mcencrypt.control.client import request

    return request(run_dir, "probe", address=address, port=port, key_id=key_id, carrier=carrier, seconds=seconds)


def _parse(peer: str | None) -> tuple[str, int | None] | None:
    from mcencrypt.doctor.peer import parse_peer

    try:
        return None if peer is None else parse_peer(peer)
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def open_case(settings: Settings) -> Case:
    """Everything the checks start from. A configuration that cannot be read is a finding, not an error.

    Raises OperatorError if no daemon runs and the network namespace that it should serve cannot be entered.
    """
    from mcencrypt.control.client import request
    from mcencrypt.doctor.case import Case
    from mcencrypt.doctor.machine import ThisMachine
    from mcencrypt.doctor.netns import enter
    from mcencrypt.errors import OperatorError
    from mcencrypt.store.config import Config

    problem = ""
    try:
        config = settings.load()
    except OperatorError as error:
        problem = str(error)
        config = Config() if settings.run_dir is None else replace(Config(), run_dir=settings.run_dir)
    case = Case(ThisMachine(), config, problem)
    try:
        case.status = request(config.run_dir, "status")
    except OperatorError as error:
        case.silence = str(error)
    try:
        case.elsewhere = enter(case.daemon_pid, config.netns)
    except OperatorError as error:
        if case.status is None:
            raise
        case.not_entered = str(error)
    return case


def as_dict(topics: list[Topic]) -> dict[str, object]:
    """The report for programs."""
    from mcencrypt.doctor.finding import Severity

    found = [(topic.name, finding) for topic in topics for finding in topic.findings]
    return {
        "problems": sum(finding.severity is Severity.PROBLEM for _, finding in found),
        "warnings": sum(finding.severity is Severity.WARNING for _, finding in found),
        "findings": [
            {
                "topic": topic,
                "id": finding.id,
                "severity": finding.severity.name.lower(),
                "text": finding.text,
                "advice": finding.advice,
            }
            for topic, finding in found
        ],
    }


def describe(topics: list[Topic], lowest: int = 0) -> list[str]:
    """The report for a terminal."""
    from mcencrypt.doctor.finding import Severity

    marks = {Severity.OK: "ok", Severity.NOTE: "note", Severity.WARNING: "WARNING", Severity.PROBLEM: "PROBLEM"}
    lines: list[str] = []
    for topic in topics:
        shown = [finding for finding in topic.findings if finding.severity >= lowest]
        if not shown:
            continue
        lines.append(topic.name)
        for finding in shown:
            lines += _wrap(f"  {marks[finding.severity]:<8} ", finding.text)
            if finding.advice:
                lines += _wrap("           -> ", finding.advice)
        lines.append("")
    problems, warnings = (
        sum(finding.severity is severity for topic in topics for finding in topic.findings)
        for severity in (Severity.PROBLEM, Severity.WARNING)
    )
    total = text.plural(problems, "problem") if problems else "no problem"
    return [*lines, f"{total}, {text.plural(warnings, 'warning')}"]


def _wrap(head: str, words: str) -> list[str]:
    # What can be a peer's or another program's words must not reach the terminal as control sequences.
    clean = "".join(letter if letter.isprintable() else "?" for letter in words)
    width = max(text.columns() or _WIDTH, 40)
    wrapper = textwrap.TextWrapper(width, head, " " * len(head), break_long_words=False, break_on_hyphens=False)
    return wrapper.wrap(clean)
