"""What every command takes: ``--config``, ``--netns`` and ``--run-dir``, before or after its name, and the settings."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from mcencrypt.store.config import Config


@dataclass
class Settings:
    """The shared options as they were given."""

    config: Path | None = None
    run_dir: Path | None = None
    netns: str | None = None

    def load(self) -> Config:
        """The configuration that these options, the environment and the file add up to.

        Raises OperatorError if something in it is wrong.
        """
        from mcencrypt.store.config import load

        return load(self.config, os.environ, run_dir=self.run_dir, netns=self.netns)

    def run_dir_to_read(self) -> Path:
        """The folder of the daemon's sockets, for a command that only shows.

        Who may use `status_group`'s socket need not be able to read the configuration: then it is the folder that the
        options, the environment or the default say. Raises OperatorError if something in the configuration is wrong.
        """
        from mcencrypt.errors import OperatorError
        from mcencrypt.store.config import Config, load

        try:
            return self.load().run_dir
        except OperatorError:
            if os.geteuid() == 0:
                raise
            environ = {name: value for name, value in os.environ.items() if name != "MCENCRYPT_CONFIG"}
            nothing = Path(os.devnull)
            return load(nothing, environ, run_dir=self.run_dir, netns=self.netns).run_dir or Config.run_dir

    @property
    def custom(self) -> bool:
        """Whether this call names settings that a service of the system does not know of."""
        named = self.config is not None or self.run_dir is not None
        return named or any(name.startswith("MCENCRYPT_") for name in os.environ)

    def arguments(self) -> list[str]:
        """The same options again, for a daemon that is started elsewhere."""
        config = self.config or os.environ.get("MCENCRYPT_CONFIG")
        words = ["--config", os.path.abspath(config)] if config else []
        words += ["--netns", self.netns] if self.netns is not None else []
        return words + (["--run-dir", os.path.abspath(self.run_dir)] if self.run_dir else [])


def shared_options() -> Iterator[click.Option]:
    """``--config``, ``--netns`` and ``--run-dir``, new ones for each command. The one given last wins."""
    for name, metavar, text in (
        ("config", "FILE", "Configuration file.  [env: MCENCRYPT_CONFIG; default: /etc/mcencrypt/config.toml]"),
        ("run_dir", "DIR", "Folder of the control socket.  [env: MCENCRYPT_RUN_DIR; default: /run/mcencrypt]"),
        ("netns", "TARGET", "Network namespace: NAME, PID or docker:CONTAINER.  [env: MCENCRYPT_NETNS]"),
    ):
        yield click.Option(
            [f"--{name.replace('_', '-')}", name],
            type=str if name == "netns" else click.Path(path_type=Path),
            metavar=metavar,
            help=text,
            expose_value=False,
            callback=_keep,
        )


def _keep(ctx: click.Context, param: click.Parameter, value: Path | str | None) -> None:
    settings = ctx.ensure_object(Settings)
    if value is not None and param.name:
        setattr(settings, param.name, value)


class Command(click.Command):
    """A subcommand: takes the shared options too, and shows an example."""

    def __init__(self, *args: Any, example: str = "", **kwargs: Any) -> None:
        if example:
            kwargs["epilog"] = "\b\nExample:\n" + "\n".join(f"  {line}" for line in example.splitlines())
        super().__init__(*args, **kwargs)
        self.params.extend(shared_options())


class Meaning(click.Group):
    """A group that guesses what a word that is no command was meant to be."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            import difflib

            close = difflib.get_close_matches(args[0], self.list_commands(ctx), n=1, cutoff=0.6)
            if close:
                raise click.UsageError(f"{error.message.rstrip('.')}, did you mean {close[0]}?", ctx) from None
            raise


class Group(Command, Meaning):
    """A subcommand that has subcommands of its own."""


def command(example: str) -> Callable[[Callable[..., Any]], Command]:
    """Make a subcommand of a function; `example` is shown in its help."""
    return click.command(cls=Command, example=example)


def group(example: str, *, alone: bool = False) -> Callable[[Callable[..., Any]], Group]:
    """Make a subcommand with subcommands of a function, which is called before each of them, and `alone` by itself."""
    return click.group(cls=Group, example=example, invoke_without_command=alone)


pass_settings = click.make_pass_decorator(Settings, ensure=True)
