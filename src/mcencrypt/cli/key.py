"""``mcencrypt key``: changing the network key without an outage."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mcencrypt.cli import sealing, text
from mcencrypt.cli.settings import Settings, command, group, pass_settings
from mcencrypt.control.client import NoDaemonError, request
from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.control.replies import Key, Keys
    from mcencrypt.core.handshake import NetworkSecret
    from mcencrypt.store.config import Config
    from mcencrypt.store.keyring import StoredKeyring
    from mcencrypt.store.keys import NetworkKey

_TIMEOUT = 120.0  # seconds: all peers are asked, some of them perhaps in vain
_HEAD = ("KEY", "OFFERED", "CONNECTIONS", "PEERS", "LAST USED", "")
_LONGEST = 1024  # bytes of a key file


@group("mcencrypt keygen new.key              # once, then copy new.key to every node\n"
       "mcencrypt key add new.key             # on every node\n"
       "mcencrypt key use 5f0c2a              # then on every node\n"
       "mcencrypt key retire 9b1d77           # then on every node")  # fmt: skip
def key() -> None:
    """Change the network key while all nodes keep talking.

    A node accepts all its keys, and offers one when it dials. First every node gets the new key, then every node uses
    it, then every node retires the old one. A step that would cut peers off is refused.
    """


@command("mcencrypt key list\nmcencrypt key list --json")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
@pass_settings
def list_(settings: Settings, as_json: bool) -> None:
    """Show the keys that this node accepts, by id.

    CONNECTIONS counts those that began under a key, PEERS those known to have offered it last, within a day.
    """
    config = settings.load()
    try:
        status = request(config.run_dir, "status")
        result: Keys = {"keys": status["keys"], "base_key_retired": status["base_key_retired"]}
    except NoDaemonError:
        result = _described(_stored(config))
    if as_json:
        click.echo(json.dumps(result, indent=2))
        return
    click.echo("\n".join(text.table(_HEAD, [_row(one) for one in result["keys"]], (2, 3, 4))))
    if result["base_key_retired"]:
        click.echo(f"next: {_replace(config, next(one['id'] for one in result['keys'] if one['offered']))}", err=True)


@command("mcencrypt key add new.key\nssh other-node cat new.key | mcencrypt key add -")
@click.argument("file", required=False, default="-")
@pass_settings
def add(settings: Settings, file: str) -> None:
    """Accept one more key, from FILE or standard input.

    Nothing changes for connections; this node goes on to offer the key that it offered. Without a daemon the key is
    there when it starts.
    """
    config = settings.load()
    new = _read(file)
    try:
        result = request(config.run_dir, "key-add", key=new.text())
    except NoDaemonError:
        with _offline(config) as stored:
            known = len(stored.ring)
            added = stored.add(new).key_id.hex()
            result = {"id": added, "new": len(stored.ring) > known}
    click.echo(f"key {result['id']} is accepted{'' if result['new'] else ' already'}")
    click.echo(f"next: once every node accepts it, `mcencrypt key use {result['id']}` on each", err=True)


@command("mcencrypt key use 5f0c2a\nmcencrypt key use 5f0c2a --force")
@click.argument("id_", metavar="ID")
@click.option("--force", is_flag=True, help="Ask no peer; those without the key cannot be dialled from here then.")
@pass_settings
def use(settings: Settings, id_: str, force: bool) -> None:
    """Offer another key, once all peers accept it.

    ID is what `mcencrypt key list` shows, or its first digits. Connections go on as they are. Every peer is asked
    first; if one answers with the present key and not with this one, nothing changes. Peers that cannot be dialled
    from here with any key are named and do not count.
    """
    config = settings.load()
    try:
        result = request(config.run_dir, "key-use", timeout=_TIMEOUT, id=id_, force=force)
    except NoDaemonError:
        with _without_asking(config, force) as stored:
            before, secret = stored.ring.offered, _find(stored, id_)
            stored.offer(secret)
            result = {"id": secret.key_id.hex(), "before": before.key_id.hex(), "asked": 0, "unreachable": []}
    click.echo(f"key {result['id']} is offered; {_asked(result['asked'], force)}")
    for one in result["unreachable"]:
        click.echo(f"cannot be dialled from here, with either key: {one}")
    click.echo("next: the same on the other nodes, then `mcencrypt key retire` the old key on each", err=True)


@command("mcencrypt key retire 9b1d77\nmcencrypt key retire 9b1d77 --force")
@click.argument("id_", metavar="ID")
@click.option("--force", is_flag=True, help="Ask no peer; those that offer the key cannot dial this node then.")
@pass_settings
def retire(settings: Settings, id_: str, force: bool) -> None:
    """Accept a key no more, once no peer offers it.

    ID is what `mcencrypt key list` shows, or its first digits. Connections that began under it go on. Every peer is
    asked first; one that cannot be asked counts by what it offered when it last dialled this node, within a day.
    """
    config = settings.load()
    try:
        result = request(config.run_dir, "key-retire", timeout=_TIMEOUT, id=id_, force=force)
    except NoDaemonError:
        with _without_asking(config, force) as stored:
            secret = _find(stored, id_)
            stored.retire(secret)
            result = {
                "id": secret.key_id.hex(), "offered": stored.ring.offered.key_id.hex(), "asked": 0,
                "base": stored.base_retired, "connections": 0,
            }  # fmt: skip
    click.echo(f"key {result['id']} is retired; {_asked(result['asked'], force)}")
    if result["connections"]:
        stays = "stays" if result["connections"] == 1 else "stay"
        click.echo(f"{text.plural(result['connections'], 'connection')} that began under it {stays} until closed")
    if result["base"]:
        click.echo(f"next: {_replace(config, result['offered'])}", err=True)


for _name, _command in (
    *(("list", list_), ("add", add), ("use", use), ("retire", retire)),
    *(("seal", sealing.seal), ("open", sealing.open_)),
):
    key.add_command(_command, _name)


def _stored(config: Config) -> StoredKeyring:
    from mcencrypt.store.keyring import StoredKeyring

    return StoredKeyring(config.state_dir, config.network_key())


def _described(stored: StoredKeyring) -> Keys:
    keys: list[Key] = [
        {
            "id": secret.key_id.hex(), "accepted": True, "offered": secret is stored.ring.offered,
            "base": secret.key_id == stored.base.key_id, "connections": 0, "peers": 0, "last_used": None,
        }
        for secret in stored.ring
    ]  # fmt: skip
    return {"keys": keys, "base_key_retired": stored.base_retired}


@contextmanager
def _offline(config: Config) -> Iterator[StoredKeyring]:
    """The ring on disk, while no daemon can start."""
    from mcencrypt.control.runlock import STATE_LOCK_NAME, RunLock

    with RunLock.acquire(config.state_dir, STATE_LOCK_NAME, "state_dir"):
        yield _stored(config)


@contextmanager
def _without_asking(config: Config, force: bool) -> Iterator[StoredKeyring]:
    """The same for a change before which a daemon would have asked the peers. Raises OperatorError unless `force`."""
    if not force:
        raise OperatorError(
            f"no daemon answers at {config.run_dir}, so no peer can be asked: start it with `mcencrypt on`, or "
            "insist with --force"
        )
    with _offline(config) as stored:
        yield stored


def _find(stored: StoredKeyring, id_: str) -> NetworkSecret:
    from mcencrypt.core.keyring import RingError

    try:
        return stored.ring.find(id_)
    except RingError as problem:
        raise OperatorError(str(problem)) from None


def _read(file: str) -> NetworkKey:
    from mcencrypt.store.keys import load_network_key, parse_network_key

    if file != "-":
        return load_network_key(Path(file))
    if sys.stdin.isatty():
        raise OperatorError("no key: name its FILE, or send it to standard input (never type it as an argument)")
    return parse_network_key(sys.stdin.buffer.read(_LONGEST), "standard input")


def _row(one: Key) -> tuple[str, ...]:
    notes = [word for word, said in (("in network_key_file", one["base"]), ("retired", not one["accepted"])) if said]
    return (
        one["id"],
        "yes" if one["offered"] else "-",
        str(one["connections"]),
        str(one["peers"]),
        "-" if one["last_used"] is None else f"{text.age(one['last_used'])} ago",
        ", ".join(notes),
    )


def _asked(count: int, force: bool) -> str:
    if force:
        return "no peer was asked"
    return f"{text.plural(count, 'peer')} asked" if count else "there was no peer to ask"


def _replace(config: Config, offered: str) -> str:
    return f"{config.network_key_file} still holds a retired key: put key {offered} there"
