"""``mcencrypt decode``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from mcencrypt.cli import text
from mcencrypt.cli.settings import command

if TYPE_CHECKING:
    from mcencrypt.reading.conversations import Conversation
    from mcencrypt.reading.reassembly import Half, Run
    from mcencrypt.reading.report import Report
    from mcencrypt.reading.streamparser import Piece, Record


@command(
    "tcpdump -i eth0 -w wire.pcap tcp port 7331\n"
    "mcencrypt decode wire.pcap\n"
    "mcencrypt decode --check --port 7331 wire.pcap && echo nothing leaked"
)
@click.argument("file", metavar="FILE.pcap")
@click.option(
    "--port",
    "ports",
    type=click.IntRange(1, 65535),
    multiple=True,
    metavar="PORT",
    help="Only connections from or to this port; may be repeated.  [default: every TCP connection]",
)
@click.option("--records", is_flag=True, help="Print a line for each record, as it is read.")
@click.option("--check", is_flag=True, help="Fail unless every byte is handshake or record, and there are some.")
def decode(file: str, ports: tuple[int, ...], records: bool, check: bool) -> int:
    """Name what is on the wire in a capture (pcap or pcapng; - is standard input).

    Per connection: handshake messages with the network key's id, records with lengths and offsets, and whatever is
    neither, such as plaintext. Needs no key and opens no record. Offsets count from the SYN: wire offsets as on the
    network, plain offsets as the application wrote.
    """
    from mcencrypt.reading.report import decode as read

    report = read(file, ports or None, _print_record if records else None)
    for conversation in report.conversations:
        click.echo("\n".join(_conversation(conversation)))
    click.echo("\n".join(summary(report)))
    return 1 if check and not report.clean else 0


def _print_record(conversation: Conversation, half: Half, record: Record) -> None:
    end = "  FINAL" if record.final else ""
    click.echo(
        f"#{conversation.number} {half.name}  record  wire {record.wire}  plain {record.plain}"
        f"  length {record.length}{end}"
    )


def _conversation(conversation: Conversation) -> list[str]:
    client, server = conversation.halves
    lines = [f"#{conversation.number} {client.name} > {server.name}  {conversation.verdict.value}"]
    for half in conversation.halves:
        lines += [f"  {half.name} sent:", *(f"    {line}" for line in _half(half))]
    lines += [f"  note: {note}" for note in conversation.notes]
    return lines


def _half(half: Half) -> list[str]:
    lines = []
    if half.greeting is not None:
        greeting = half.greeting
        lines.append(f"handshake message {greeting.kind}, network key {greeting.key_id.hex()}, {greeting.length} B")
    listed = [_entry(entry) for entry in half.listed]
    if half.unlisted:
        listed.insert(-1, f"... {half.unlisted} more lines (--records prints every record)")
    lines += listed
    total = f"= {text.plural(half.records, 'record')} with {half.plain} B"
    if half.retransmitted:
        total += f", {half.retransmitted} B retransmitted"
    total += "".join(f", {count} B {finding.value}" for finding, count in half.found.items() if count)
    return [*lines, total]


def _entry(entry: Run | Piece) -> str:
    from mcencrypt.reading.streamparser import Piece

    if isinstance(entry, Piece):
        detail = f": {entry.detail}" if entry.detail else ""
        return f"{entry.finding.value}  wire {entry.wire}  {entry.size} B{detail}"
    end = "  FINAL" if entry.final else ""
    count = "record " if entry.records == 1 else f"{entry.records} records "
    return f"{count} wire {entry.wire}  plain {entry.plain}  length {entry.length}{end}"


def summary(report: Report) -> list[str]:
    """Totals and the verdict."""
    from mcencrypt.reading.conversations import Verdict

    halves = [half for one in report.conversations for half in one.halves]
    lines = [
        f"total: {text.plural(len(report.conversations), 'connection')}, "
        f"{text.plural(sum(half.greeting is not None for half in halves), 'handshake message')}, "
        f"{text.plural(sum(half.records for half in halves), 'record')} "
        f"with {sum(half.plain for half in halves)} B"
    ]
    if report.cut:
        lines.append(f"cut: {text.plural(report.cut, 'packet')} by the snapshot length of the capture (tcpdump -s)")
    lines += [f"not read: {reason}: {count}" for reason, count in report.oddities.items()]
    found = [
        f"{len(report.of(verdict))} {verdict.value}"
        for verdict in (Verdict.PLAINTEXT, Verdict.FOREIGN, Verdict.PARTLY, Verdict.MISSING)
        if report.of(verdict)
    ]
    if report.clean:
        told = "encrypted: every data byte is handshake or record"
    elif found:
        told = f"of {text.plural(len(report.conversations), 'connection')}: {', '.join(found)}"
    elif report.cut:
        told = "incomplete: packets were cut when they were captured; use `tcpdump -s 0`"
    elif report.oddities:
        told = "incomplete: some packets could not be read"
    else:
        told = "nothing to judge: no data in the capture"
    return [*lines, f"verdict: {told}"]
