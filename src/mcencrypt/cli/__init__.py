"""The command line: one module per idea, imported when its command is used."""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import click

from mcencrypt.cli.settings import Meaning, shared_options
from mcencrypt.errors import OperatorError
from mcencrypt.interpreted import build
from mcencrypt.version import VERSION

# Name: module and, in it, the command. Importing all of them for every call would triple the start-up time.
_COMMANDS = {
    "on": ("switch", "on"),
    "off": ("switch", "off"),
    "status": ("status", "status"),
    "top": ("top", "top"),
    "mode": ("mode", "mode"),
    "reload": ("mode", "reload"),
    "peers": ("peers", "peers"),
    "daemon": ("daemon", "daemon"),
    "keygen": ("keys", "keygen"),
    "key": ("key", "key"),
    "identity": ("keys", "identity"),
    "rules": ("rules", "rules"),
    "fence": ("fence", "fence"),
    "install": ("install", "install"),
    "uninstall": ("install", "uninstall"),
    "decode": ("decode", "decode"),
    "doctor": ("doctor", "doctor"),
    "verify": ("verify", "verify"),
}


class _Cli(Meaning):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module, name = _COMMANDS[cmd_name]
        command = getattr(importlib.import_module(f"mcencrypt.cli.{module}"), name)
        assert isinstance(command, click.Command)
        return command

    def main(self, args: Sequence[str] | None = None, *_: Any, **options: Any) -> NoReturn:
        """Run, and leave with 0 (done), 1 (failed) or 2 (usage); what went wrong is one line on stderr."""
        options.update(prog_name="mcencrypt", standalone_mode=False)
        try:
            status = super().main(args, **options)
            sys.stdout.flush()
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(2)
        except click.UsageError as error:
            path = error.ctx.command_path if error.ctx else "mcencrypt"
            _fail(f"{error.format_message()} (see `{path} --help`)", 2)
        except click.ClickException as error:
            _fail(error.format_message(), 1)
        except OperatorError as error:
            _fail(str(error), 1)
        except (click.Abort, KeyboardInterrupt):
            _fail("interrupted", 1)
        except BrokenPipeError:
            # Whoever read our output has seen enough; the interpreter must not complain when it flushes.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)
        sys.exit(status if isinstance(status, int) else 0)


def _fail(message: str, status: int) -> NoReturn:
    click.echo("mcencrypt: " + " ".join(message.split()), err=True)
    sys.exit(status)


def _show_version(ctx: click.Context, param: click.Parameter, value: bool) -> None:
    if not value:
        return
    click.echo(f"mcencrypt {VERSION} ({build()})")
    ctx.exit()


@click.command(
    cls=_Cli,
    params=list(shared_options()),
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Settings come from /etc/mcencrypt/config.toml, from the environment (MCENCRYPT_<KEY>), and from options,"
    " the last named winning. Exit status: 0 done, 1 failed, 2 wrong usage.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_show_version, help="Show the version."
)
def cli() -> None:
    """Encrypts and authenticates all P2P traffic between MultiChain nodes, without touching multichaind."""


def main() -> NoReturn:
    """The entry point of the ``mcencrypt`` command."""
    cli.main()
