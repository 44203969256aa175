"""``mcencrypt on`` and ``mcencrypt off``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from mcencrypt.cli.settings import Settings, command, pass_settings
from mcencrypt.cli.text import names, plural
from mcencrypt.core.status import State

if TYPE_CHECKING:
    from mcencrypt.control.replies import Status
    from mcencrypt.store.config import Config

_SWITCH_TIMEOUT = 30.0  # seconds; iptables may have to wait for another program's lock
_POLL = 0.05


@command("mcencrypt on")
@pass_settings
def on(settings: Settings) -> None:
    """Switch encryption on, starting the daemon if none runs, and wait until it works.

    Plaintext connections on the P2P ports are then closed; nodes connect again by themselves, encrypted. (With mode
    "prefer" they stay until they close.)
    """
    from mcencrypt.cli.start import ensure_daemon
    from mcencrypt.control.client import request

    config = settings.load()
    started = ensure_daemon(settings, config)
    done = request(config.run_dir, "on", timeout=_SWITCH_TIMEOUT)
    result = request(config.run_dir, "status")
    ports = ", ".join(map(str, result["ports"]))
    click.echo(f"mcencrypt is on ({result['mode']}) for ports {ports}; daemon pid {result['pid']}")
    if done["ended"]:
        ended = [one["peer"] for one in done["ended"]]
        click.echo(f"ended {plural(len(ended), 'plaintext connection')}, to come back encrypted: {names(ended)}")
    if started:
        click.echo(started)


@command("mcencrypt off\nmcencrypt off --now")
@click.option("--now", is_flag=True, help="Reset encrypted connections instead of letting them finish.")
@pass_settings
def off(settings: Settings, now: bool) -> None:
    """Switch encryption off: new connections are plaintext.

    Connections that are encrypted stay so until they close, and this command does not wait for them. Off is
    remembered across restarts.
    """
    done = switch_off(settings.load(), now)
    if done is None:
        click.echo("mcencrypt is off; no daemon runs, and no rules are left")
        return
    reset, result = done
    click.echo(f"mcencrypt is off: new connections are plaintext; daemon pid {result['pid']}")
    if reset:
        click.echo(f"reset {plural(len(reset), 'encrypted connection')}, to come back in plaintext: {names(reset)}")
    left = sum(connection["state"] in (State.ENCRYPTED, State.UNCONFIRMED) for connection in result["connections"])
    if left:
        go = "goes" if left == 1 else "go"
        click.echo(f"{plural(left, 'encrypted connection')} {go} on until closed (`mcencrypt off --now` resets them)")


def switch_off(config: Config, now: bool) -> tuple[list[str], Status] | None:
    """Ask the daemon, or do it here if there is none.

    Returns the peers whose connections were reset, and the daemon's status; None without a daemon.
    """
    from mcencrypt.control.client import NoDaemonError, request
    from mcencrypt.control.runlock import LockHeldError, RunLock

    deadline = time.monotonic() + _SWITCH_TIMEOUT
    while True:
        try:
            done = request(config.run_dir, "off", timeout=_SWITCH_TIMEOUT, now=now)
            return done["reset"], request(config.run_dir, "status")
        except NoDaemonError:
            pass
        try:
            with RunLock.acquire(config.run_dir):
                from mcencrypt.cli import offline

                offline.switch_off(config)
                return None
        except LockHeldError:
            # A daemon that is just starting or ending: it will answer soon, or give the lock back.
            if time.monotonic() > deadline:
                raise
        time.sleep(_POLL)
