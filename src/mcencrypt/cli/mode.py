"""``mcencrypt mode`` and ``mcencrypt reload``."""

from __future__ import annotations

import json
import os
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mcencrypt.cli.settings import Settings, command, pass_settings
from mcencrypt.cli.text import plural
from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.control.replies import ModeShown, PlaintextPeer, Reloaded
    from mcencrypt.core.policy import Mode
    from mcencrypt.store.config import Config

_TIMEOUT = 30.0  # seconds; iptables may have to wait for another program's lock
_SHOWN = 20
_SOURCES = {"command": "set by `mcencrypt mode`", "configuration": "as configured"}


@command("mcencrypt mode\nmcencrypt mode require --yes\nmcencrypt mode --from-config")
@click.argument("mode", required=False, type=click.Choice(("require", "prefer")))
@click.option("--from-config", is_flag=True, help="Forget what was set here: the configuration decides again.")
@click.option("--yes", is_flag=True, help="End plaintext connections without asking.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@pass_settings
def mode(settings: Settings, mode: Mode | None, from_config: bool, yes: bool, as_json: bool) -> None:
    """Show the mode, or change it at once: "require" is encrypted or not at all, "prefer" takes plaintext too.

    Changing to "require" ends the connections that are in plaintext, but those that allow_plaintext names; they are
    shown first. Nodes connect again by themselves, encrypted if the far side can. Encrypted connections are not
    touched. What is set here is remembered, and wins over the configuration until --from-config.
    """
    if mode and from_config:
        raise click.UsageError("give a mode or --from-config, not both")
    config = settings.load()
    result = _ask(config, mode, from_config, yes)
    if result.get("would_end"):
        result = _ask(config, mode, from_config, _confirmed(result["would_end"]))
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    configured = result["configured"]
    aside = f"; the configuration says {configured}" if configured != result["mode"] else ""
    click.echo(f"mode is {result['mode']}, {_SOURCES[result['mode_source']]}{aside}")
    if result.get("ended"):
        click.echo(f"{plural(len(result['ended']), 'plaintext connection')} ended")
    left = result.get("plaintext_peers") or []
    if left:
        click.echo(f"{plural(len(left), 'connection')} in plaintext: {_names(left)}")


def _ask(config: Config, mode: Mode | None, from_config: bool, confirmed: bool) -> ModeShown:
    from mcencrypt.control.client import NoDaemonError, request

    try:
        return request(
            config.run_dir, "mode", timeout=_TIMEOUT, mode=mode, from_config=from_config, confirmed=confirmed
        )
    except NoDaemonError:
        return _offline(config, mode, from_config)


def _offline(config: Config, mode: Mode | None, from_config: bool) -> ModeShown:
    """The same without a daemon: the next one starts with it."""
    from mcencrypt.control.runlock import RunLock
    from mcencrypt.store.position import read_mode, write_mode

    if mode or from_config:
        with RunLock.acquire(config.run_dir):
            write_mode(config.state_dir, mode)
    remembered = read_mode(config.state_dir)
    return {
        "mode": remembered or config.mode,
        "mode_source": "command" if remembered else "configuration",
        "configured": config.mode,
    }


def _confirmed(would_end: list[PlaintextPeer]) -> bool:
    """Name them, and ask if there is somebody to ask. Raises OperatorError if there is nobody, or the answer was no."""
    named = f"{plural(len(would_end), 'plaintext connection')} would be cut: {_names(would_end)}"
    if not sys.stdin.isatty():
        raise OperatorError(f"{named}: give --yes to end them, or name their networks in allow_plaintext")
    click.echo(f"warning: {named}", err=True)
    click.echo("They come back encrypted if mcencrypt is on there; otherwise not at all.", err=True)
    if not click.confirm("End them?", err=True):
        raise OperatorError("nothing was changed")
    return True


def _names(connections: list[PlaintextPeer]) -> str:
    names = [one["peer"] for one in connections]
    more = [f"and {len(names) - _SHOWN} more"] if len(names) > _SHOWN else []
    return ", ".join(names[:_SHOWN] + more)


@command("mcencrypt reload")
@click.option("--json", "as_json", is_flag=True, help="Print the result as one JSON object.")
@pass_settings
def reload(settings: Settings, as_json: bool) -> None:
    """Let the daemon read its configuration again, as SIGHUP does. Encrypted connections are not touched.

    Exceptions: a port that is given up (its connections are reset, and come back in plaintext), and plaintext
    connections that the new configuration forbids. What cannot change while the daemon runs is named. If the
    configuration is wrong the old one stays, and this fails.
    """
    result = _reload(settings)
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo(f"reloaded: {', '.join(result['changed']) or 'nothing changed'}")
    if result["mode_source"] == "command" and "mode" in result["changed"]:
        click.echo(f"mode stays {result['mode']}, set by `mcencrypt mode`: see `mcencrypt mode --from-config`")
    if result["encrypted_reset"]:
        click.echo(f"{plural(result['encrypted_reset'], 'encrypted connection')} reset on ports that were given up")
    if result["distrusted_ended"]:
        click.echo(f"{plural(result['distrusted_ended'], 'connection')} of peers that are not listed ended")
    if result["plaintext_ended"]:
        click.echo(f"{plural(result['plaintext_ended'], 'plaintext connection')} ended")
    for one in result["warnings"]:
        click.echo(f"warning: {one}", err=True)
    if result["needs_restart"]:
        click.echo(f"needs a restart of the daemon: {', '.join(result['needs_restart'])}: {_restart(settings)}")


def _restart(settings: Settings) -> str:
    """How the daemon is restarted here."""
    from mcencrypt.system import service

    unit = service.unit_of(settings.netns)
    if service.is_installed(unit):
        return f"systemctl restart {unit.removesuffix('.service')}"
    return "restart its container, or end it (`mcencrypt status` shows its pid) and start it with `mcencrypt on`"


def _reload(settings: Settings) -> Reloaded:
    """Ask the daemon, even if the configuration is wrong: its answer is the one that counts, and its log has it too.

    Raises OperatorError if no daemon answers, or if it keeps its old configuration, and says why.
    """
    from mcencrypt.control.client import NoDaemonError, request
    from mcencrypt.store.config import Config

    try:
        run_dir, wrong = settings.load().run_dir, None
    except OperatorError as problem:
        named = settings.run_dir or os.environ.get("MCENCRYPT_RUN_DIR") or _run_dir_in(settings)
        run_dir, wrong = Path(named or Config.run_dir), problem
    try:
        return request(run_dir, "reload", timeout=_TIMEOUT)
    except NoDaemonError:
        if wrong is None:
            raise
        raise OperatorError(f"{wrong} (nothing was reloaded)") from None


def _run_dir_in(settings: Settings) -> str | None:
    """What a configuration file with a mistake elsewhere says of the control socket's folder."""
    from mcencrypt.store.config import DEFAULT_FILE

    file = Path(settings.config or os.environ.get("MCENCRYPT_CONFIG") or DEFAULT_FILE)
    try:
        found = tomllib.loads(file.read_text()).get("run_dir")
    except (OSError, ValueError):
        return None
    return str(file.parent.absolute() / found) if isinstance(found, str) else None
