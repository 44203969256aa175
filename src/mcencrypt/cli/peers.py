"""``mcencrypt peers``: who is connected, and who is trusted."""

from __future__ import annotations

import base64
import json
from datetime import datetime
from typing import TYPE_CHECKING

import click

from mcencrypt.cli import text
from mcencrypt.cli.settings import Settings, command, group, pass_settings
from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.control.replies import Peer, Peers
    from mcencrypt.store.config import Config

#: What leaves first where the terminal is narrow.
_LEAVE = (("LOCAL",), ("SINCE",))
_HEAD = ("NAME", "KEY", "PEER", "LOCAL", "SINCE", "SENT", "RECEIVED")
_KEY = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
_TIMEOUT = 30.0  # seconds


@group(f"mcencrypt peers\nmcencrypt peers add org-b {_KEY}\nmcencrypt peers remove org-b", alone=True)
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
@click.pass_context
def peers(ctx: click.Context, as_json: bool) -> None:
    """Show who is connected, by name and proven public key, and which listed peers are not.

    With trust = "listed" in the configuration only the peers in peers_file may connect; with "network-key", whoever has
    the network key, and the list only gives names.
    """
    if ctx.invoked_subcommand is None:
        _show(ctx.ensure_object(Settings), as_json)


@command("mcencrypt peers list --json")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
@pass_settings
def list_(settings: Settings, as_json: bool) -> None:
    """The same as `mcencrypt peers`."""
    _show(settings, as_json)


@command(f"mcencrypt peers add org-b {_KEY}")
@click.argument("name")
@click.argument("key")
@pass_settings
def add(settings: Settings, name: str, key: str) -> None:
    """List a peer: NAME is yours to choose, KEY is what `mcencrypt identity` shows there.

    Writes peers_file, and a running daemon knows it at once.
    """
    from mcencrypt.store.peers import add_peer, parse_key

    config = settings.load()
    _refuse_own(config, key)
    if not add_peer(config.peers_path, name, parse_key(key)):
        click.echo(f"{name} is listed in {config.peers_path} already, with that key")
        return
    click.echo(f"{name} is listed in {config.peers_path}")
    _tell_daemon(config)


@command("mcencrypt peers remove org-b")
@click.argument("name_or_key", metavar="NAME|KEY")
@pass_settings
def remove(settings: Settings, name_or_key: str) -> None:
    """Take a peer from the list. With trust = "listed" its connections end at once, and it cannot make new ones."""
    from mcencrypt.store.peers import remove_peer

    config = settings.load()
    name, key, left = remove_peer(config.peers_path, name_or_key)
    click.echo(f"{name} ({base64.b64encode(key).decode()}) is not listed any more")
    _tell_daemon(config)
    if config.trust == "listed" and not left:
        click.echo("warning: nobody is listed now, so no peer can connect, and no daemon can start", err=True)


peers.add_command(list_, "list")
peers.add_command(add)
peers.add_command(remove)


def _refuse_own(config: Config, text: str) -> None:
    """Secrets look as public keys do, and everybody sees the list. Raises OperatorError."""
    from mcencrypt.store.own import whose

    found = whose(config, text)
    if found == "identity":
        raise OperatorError("that is this node's own public key: list it on the others, and here theirs")
    if found:
        raise OperatorError(
            f"that is {found}, a SECRET, and no peer's public key (`mcencrypt identity` there shows that): nothing was "
            "written. It may be in the shell's history, and whoever lists processes has seen it: if others use this "
            "machine, change it"
        )


def _tell_daemon(config: Config) -> None:
    from mcencrypt.control.client import NoDaemonError, request

    try:
        result = request(config.run_dir, "peers-changed", timeout=_TIMEOUT)
    except NoDaemonError:
        return
    if result["ended"]:
        click.echo(f"{text.plural(result['ended'], 'connection')} ended")


def _show(settings: Settings, as_json: bool) -> None:
    from mcencrypt.control.client import NoDaemonError, request

    try:
        result = request(settings.run_dir_to_read(), "peers")
    except NoDaemonError as problem:
        config = settings.load()
        result = _listed(config)
        click.echo(f"note: {problem}; the list is what {config.peers_path} says", err=True)
    click.echo(json.dumps(result, indent=2) if as_json else "\n".join(describe(result, text.columns())))


def _listed(config: Config) -> Peers:
    """What the file says, where no daemon knows who is connected."""
    from mcencrypt.store.peers import load_peers

    try:
        peers = load_peers(config.peers_path)
    except FileNotFoundError:
        peers = {}
    return {
        "trust": config.trust,
        "file": str(config.peers_path),
        "peers": [
            {"name": name, "key": base64.b64encode(key).decode(), "connections": []} for key, name in peers.items()
        ],
    }


def describe(result: Peers, width: int | None = None) -> list[str]:
    """The result of the control command ``peers`` as lines for a terminal of that width; None: any."""
    trusted = {
        "listed": f"trusted are the peers in {result['file']}",
        "network-key": "trusted are all that have the network key",
    }
    rows, short = ([row for peer in result["peers"] for row in _rows(peer, brief)] for brief in (False, True))
    shown = text.fitting(_HEAD, rows, short, _LEAVE, ("SENT", "RECEIVED"), width) if rows else ["no peers"]
    return [*text.wrapped("", trusted[result["trust"]], width, 0), "", *shown]


def _rows(peer: Peer, brief: bool) -> list[tuple[str, ...]]:
    name = peer["name"] or "-"
    who = (text.shorten(name, 16), text.key(peer["key"])) if brief else (name, peer["key"])
    if not peer["connections"]:
        return [(*who, "not connected", "", "", "", "")]
    return [
        (
            *who,
            one["peer"],
            one["local"],
            datetime.fromtimestamp(one["since"]).isoformat(" ", "seconds"),
            text.size(one["bytes_out"]),
            text.size(one["bytes_in"]),
        )
        for one in peer["connections"]
    ]
