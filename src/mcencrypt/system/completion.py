"""Completion for bash, zsh and fish, by click: the scripts ask the program itself, so they are never stale."""

from __future__ import annotations

from typing import Final

import click
from click.shell_completion import get_completion_class

SHELLS: Final = ("bash", "zsh", "fish")


def script(shell: str, program: click.Group) -> str:
    """The script for one of `SHELLS` that completes what `program` takes."""
    kind = get_completion_class(shell)
    assert kind is not None
    complete = kind(program, {}, "mcencrypt", "_MCENCRYPT_COMPLETE")
    # not source(): for bash that starts one, to warn of old versions
    return complete.source_template % complete.source_vars()
