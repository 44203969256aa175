"""``mcencrypt peers``: who is connected, and who is trusted."""

from __future__ import annotations

import base64
import json
import time
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mcencrypt.cli import text
from mcencrypt.cli.settings import Settings, command, group, pass_settings
from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.control.replies import Answered, Peer, Peers
    from mcencrypt.store.config import Config

#: What leaves first where the terminal is narrow.
_LEAVE = (("LOCAL",), ("SINCE",))
_ANSWERED = ("ANSWERED AT", "WITH KEY", "SINCE", "LAST", "")
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


@command(f"mcencrypt peers add org-b {_KEY}\nmcencrypt peers add org-c {_KEY} --address 192.0.2.7")
@click.argument("name")
@click.argument("key")
@click.option(
    "--address",
    "addresses",
    multiple=True,
    metavar="ADDRESS[:PORT]",
    help="Where no other key may answer, on one port or on all; may be given several times.",
)
@pass_settings
def add(settings: Settings, name: str, key: str, addresses: tuple[str, ...]) -> None:
    """List a peer: NAME is yours to choose, KEY is what `mcencrypt identity` shows there.

    Writes peers_file, and a running daemon knows it at once.
    """
    from mcencrypt.store.peers import add_peer, parse_key

    config = settings.load()
    _refuse_signed(config)
    _refuse_own(config, key)
    if not add_peer(config.peers_path, name, parse_key(key), addresses):
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
    _refuse_signed(config)
    name, key, left = remove_peer(config.peers_path, name_or_key)
    click.echo(f"{name} ({base64.b64encode(key).decode()}) is not listed any more")
    _tell_daemon(config)
    if config.trust == "listed" and not left:
        click.echo("warning: nobody is listed now, so no peer can connect, and no daemon can start", err=True)


@command("mcencrypt peers forget 192.0.2.7:7331")
@click.argument("address", metavar="ADDRESS[:PORT]")
@pass_settings
def forget(settings: Settings, address: str) -> None:
    """Forget which key answered at an address, on one port or on all: the next one that answers there is believed.

    For a peer that got a new key. Compare that first with `mcencrypt identity` there.
    """
    from mcencrypt.control.client import NoDaemonError, request

    try:
        forgotten = request(settings.load().run_dir, "peers-forget", address=address)["forgotten"]
    except NoDaemonError:
        forgotten = _forget(settings.load(), address)
    for one in forgotten:
        click.echo(f"{one} is forgotten")


def _forget(config: Config, address: str) -> list[str]:
    """The same where no daemon runs, which would write the file anew."""
    from mcencrypt.control.runlock import STATE_LOCK_NAME, RunLock
    from mcencrypt.core.answers import Answers
    from mcencrypt.errors import OperatorError
    from mcencrypt.store.answers import read_answers, write_answers
    from mcencrypt.store.endpoints import endpoint_text, parse_endpoint

    endpoint, answers = parse_endpoint(address), Answers()
    with RunLock.acquire(config.state_dir, STATE_LOCK_NAME, "state_dir"):
        answers.take_over(read_answers(config.state_dir).items())
        gone = answers.forget(endpoint)
        if not gone:
            raise OperatorError(f"nothing is remembered of {endpoint_text(endpoint)}")
        write_answers(config.state_dir, answers.known)
    return [endpoint_text(one) for one in gone]


peers.add_command(list_, "list")
peers.add_command(forget)


@command("mcencrypt peers sign-key admin.key")
@click.argument("file", type=click.Path(path_type=Path))
def sign_key(file: Path) -> None:
    """Make a key that signs lists of peers, in FILE. Keep it off the nodes, which get its public half."""
    from mcencrypt.store.signedpeers import create_signing_key

    public = create_signing_key(file)
    click.echo(f'peers_signed_by = "{public}"')
    click.echo('next: that line and trust = "listed" into the configuration of every node', err=True)


@command("mcencrypt peers sign --key admin.key --days 180 >org.peers")
@click.option("--key", "key_file", required=True, type=click.Path(path_type=Path), metavar="FILE",
              help="The key that `mcencrypt peers sign-key` made.")  # fmt: skip
@click.option("--days", required=True, type=click.IntRange(1, 3650), metavar="N", help="How long the list is to count.")
@click.option("--list", "file", type=click.Path(path_type=Path), metavar="FILE",
              help="The list to sign.  [default: peers_file]")  # fmt: skip
@pass_settings
def sign(settings: Settings, key_file: Path, days: int, file: Path | None) -> None:
    """Sign a list of peers for nodes that have peers_signed_by, and print it.

    They take it from peers_file, a file or a folder (there: names that end in .peers), within half a minute. A later
    one replaces it; an older one is never taken again; once it has expired, nobody is trusted.
    """
    from mcencrypt.store.peers import load_peers
    from mcencrypt.store.signedpeers import sign as signed

    path = file or settings.load().peers_path
    try:
        peers = load_peers(path)
    except FileNotFoundError:
        raise OperatorError(f"{path}: not found: list the peers with `mcencrypt peers add NAME KEY`") from None
    now = int(time.time())
    signed_text, public = signed(peers, now, now + days * 86400, key_file)
    click.echo(signed_text.decode(), nl=False)
    until = datetime.fromtimestamp(now + days * 86400).isoformat(" ", "minutes")
    click.echo(f'signed: {text.plural(len(peers), "peer")} until {until}, for peers_signed_by = "{public}"', err=True)


peers.add_command(sign_key, "sign-key")
peers.add_command(sign)
peers.add_command(add)
peers.add_command(remove)


def _refuse_signed(config: Config) -> None:
    if config.peers_signed_by is not None:
        raise OperatorError(
            "peers_signed_by: the list is the admin's, who changes it and signs it anew (`mcencrypt peers sign`): put "
            f"that at {config.peers_path}"
        )


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
    from mcencrypt.store.peers import ListedPeers, load_peers

    try:
        peers = load_peers(config.peers_path)
    except FileNotFoundError:
        peers = ListedPeers()
    return {
        "trust": config.trust,
        "file": str(config.peers_path),
        "peers": [
            {"name": name, "key": base64.b64encode(key).decode(), "connections": []} for key, name in peers.items()
        ],
        "answered": [],
    }


def describe(result: Peers, width: int | None = None) -> list[str]:
    """The result of the control command ``peers`` as lines for a terminal of that width; None: any."""
    trusted = {
        "listed": f"trusted are the peers in {result['file']}",
        "network-key": "trusted are all that have the network key",
    }
    rows, short = ([row for peer in result["peers"] for row in _rows(peer, brief)] for brief in (False, True))
    shown = text.fitting(_HEAD, rows, short, _LEAVE, ("SENT", "RECEIVED"), width) if rows else ["no peers"]
    lines = [*text.wrapped("", trusted[result["trust"]], width, 0), "", *shown]
    if result["answered"]:
        answered, short = ([_answered(one, brief) for one in result["answered"]] for brief in (False, True))
        lines += ["", *text.fitting(_ANSWERED, answered, short, (("SINCE",), ("LAST",)), (), width)]
    return lines


def _answered(one: Answered, brief: bool) -> tuple[str, ...]:
    shown = text.key if brief else str
    note = "pinned" if one["pinned"] else ""
    if one["other_key"]:
        note = f"CHANGED: {one['other_name'] or shown(one['other_key'])}" + (", refused" if one["pinned"] else "")
    return (one["address"], one["name"] or shown(one["key"]), one["since"][:10], one["last"][:10], note)


def _rows(peer: Peer, brief: bool) -> list[tuple[str, ...]]:
    name = peer["name"] or "-"
    who = (text.shorten(name, 16), text.key(peer["key"])) if brief else (name, peer["key"])
    if not peer["connections"]:
        return [(*who, "not connected", "", "", "", "")]
    return [
        (
            *who,
            one["peer"] + (" (stream)" if one["carrier"] == "stream" else ""),
            one["local"],
            datetime.fromtimestamp(one["since"]).isoformat(" ", "seconds"),
            text.size(one["bytes_out"]),
            text.size(one["bytes_in"]),
        )
        for one in peer["connections"]
    ]
