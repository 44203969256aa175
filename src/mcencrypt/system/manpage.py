"""mcencrypt(1), made of what ``--help`` says, in the macros of man(7)."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator

import click

_FILES = (
    ("/etc/mcencrypt/config.toml", "The configuration. Every key is also a variable, as MCENCRYPT_PORTS=7331."),
    ("/etc/mcencrypt/network.key", "The key that all nodes of the network share, base64, mode 0600."),
    ("/var/lib/mcencrypt", "This node's identity, whether encryption is on, and the ports when it last was."),
    ("/run/mcencrypt", "The control socket, and which connections are encrypted (no keys)."),
)
_STATUS = (("0", "Done."), ("1", "Failed; one line on standard error says what to do."), ("2", "Wrong usage."))
_SERVICE = (
    "mcencrypt.service runs the daemon from before any network interface comes up. `systemctl stop` leaves the rules in"
    " place, and so closes the P2P ports: nothing leaves in plaintext. `mcencrypt off` opens them for plaintext."
    " mcencrypt-fence.service closes them at boot, before the network, even if the daemon cannot start."
)


def page(group: click.Group, version: str) -> str:
    """The manual page of the command and all its subcommands."""
    context = click.Context(group, info_name="mcencrypt")
    return "\n".join([*_head(group, version), *_commands(group, context), *_tail()]) + "\n"


def _head(group: click.Group, version: str) -> Iterator[str]:
    yield f'.TH MCENCRYPT 1 "" "mcencrypt {_escape(version)}" "System administration"'
    yield ".SH NAME"
    yield f"mcencrypt \\- {_escape(_first_line(group).rstrip('.'))}"
    yield ".SH SYNOPSIS"
    yield ".B mcencrypt"
    yield "[OPTIONS] COMMAND [ARGS]..."
    yield ".SH DESCRIPTION"
    yield from _paragraphs(group.help or "")
    yield from _paragraphs(group.epilog or "")
    yield ".SH OPTIONS"
    yield from _options(group, click.Context(group, info_name="mcencrypt"))
    yield ".SH COMMANDS"


def _commands(group: click.Group, context: click.Context, prefix: str = "mcencrypt") -> Iterator[str]:
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if command is None or command.hidden:
            continue
        inner = click.Context(command, info_name=name, parent=context)
        pieces = " ".join(command.collect_usage_pieces(inner))
        yield f".SS {_escape(f'{prefix} {name} {pieces}')}"
        yield from _paragraphs(command.help or "")
        yield from _options(command, inner)
        yield from _paragraphs(command.epilog or "")
        if isinstance(command, click.Group):
            yield from _commands(command, inner, f"{prefix} {name}")


def _options(command: click.Command, context: click.Context) -> Iterator[str]:
    shared = {option.name for option in context.find_root().command.params} if context.parent is not None else set()
    for parameter in command.params:
        record = parameter.get_help_record(context)
        if record is None or parameter.name in shared or not isinstance(parameter, click.Option):
            continue
        yield ".TP"
        yield f".B {_escape(record[0])}"
        yield _escape(" ".join(record[1].split()))


def _tail() -> Iterator[str]:
    yield ".SH SERVICE"
    yield from _paragraphs(_SERVICE)
    for title, entries in (("FILES", _FILES), ("EXIT STATUS", _STATUS)):
        yield f".SH {title}"
        for term, meaning in entries:
            yield ".TP"
            yield f".B {_escape(term)}"
            yield _escape(meaning)
    yield ".SH SEE ALSO"
    yield ".BR iptables (8),"
    yield ".BR systemctl (1)"


def _first_line(command: click.Command) -> str:
    return " ".join(inspect.cleandoc(command.help or "").partition("\n\n")[0].split())


def _paragraphs(text: str) -> Iterator[str]:
    """click's help texts: paragraphs that are filled, and those after a \\b that stay as they are."""
    for paragraph in re.split(r"\n\s*\n", inspect.cleandoc(text)):
        if not paragraph.strip():
            continue
        if paragraph.startswith("\b\n"):
            yield from (".PP", ".nf", *map(_escape, paragraph[2:].splitlines()), ".fi")
        else:
            yield ".PP"
            yield _escape(" ".join(paragraph.split()))


def _escape(text: str) -> str:
    """Text in which nothing is a request or an escape to roff; groff_char(7) on the hyphen."""
    text = text.replace("\\", "\\e").replace("-", "\\-")
    return "\\&" + text if text[:1] in (".", "'") else text
