"""``mcencrypt key seal`` and ``mcencrypt key open``: the network key between people who share no machine."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mcencrypt.cli.settings import Settings, command, pass_settings
from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.store.config import Config

_LONGEST = 64 * 1024
_TO = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="


@command(f"mcencrypt key seal --to {_TO} >for-org-b.txt\nmcencrypt key seal --to org-b --out for-org-b.txt")
@click.option(
    "--to", required=True, metavar="IDENTITY", help="What `mcencrypt identity` shows there, or a listed name."
)
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE", help="Write it there.  [default: print it]")
@click.option("--key", "file", type=click.Path(path_type=Path), metavar="FILE", help="Another key than this node's.")
@pass_settings
def seal(settings: Settings, to: str, out: Path | None, file: Path | None) -> None:
    """Seal the network key to one node, to be sent over any channel: mail, chat, a ticket.

    Only that node can open it, and sees that this node has sealed it. Compare both fingerprints by phone: that of the
    receiver with what `mcencrypt identity` shows there, before you send it.
    """
    from mcencrypt.core.handshake import NetworkSecret
    from mcencrypt.core.noise import KeyPair
    from mcencrypt.store.files import cannot, create_file
    from mcencrypt.store.keys import fresh_key, load_network_key
    from mcencrypt.store.sealed import fingerprint, seal_key

    config = settings.load()
    receiver = _public(config, to)
    key = config.network_key() if file is None else load_network_key(file)
    sender = config.identity()
    text = seal_key(key, receiver, sender, KeyPair(fresh_key()), time.time())
    if out is None:
        click.echo(text, nl=False)
    else:
        try:
            if not create_file(out, text.encode()):
                raise OperatorError(f"{out}: exists already and is left as it is: name another file")
        except OSError as error:
            raise cannot(out, "be written", error) from None
    click.echo(f"sealed: network key {NetworkSecret(key.secret).key_id.hex()}", err=True)
    click.echo(f"  to the node    {fingerprint(receiver)}   (`mcencrypt identity` there shows the same)", err=True)
    click.echo(f"  by this node   {fingerprint(sender.public)}   (`mcencrypt key open` there shows the same)", err=True)


@command("mcencrypt key open for-org-b.txt\nmcencrypt key open --out new.key - <mail.txt")
@click.argument("file", metavar="FILE")
@click.option("--out", type=click.Path(path_type=Path), metavar="FILE",
              help="Write the key there.  [default: network_key_file]")  # fmt: skip
@pass_settings
def open_(settings: Settings, file: str, out: Path | None) -> None:
    """Open a sealed network key, and write it where this node looks for its key. FILE may be - for standard input.

    Compare the fingerprint of the sender by phone before you use the key: whoever sealed it knows it, and can be a
    peer. An existing file is never overwritten.
    """
    from mcencrypt.core.handshake import NetworkSecret
    from mcencrypt.store.files import cannot
    from mcencrypt.store.keys import create_network_key
    from mcencrypt.store.sealed import fingerprint, open_key
    from mcencrypt.store.texts import decode

    config = settings.load()
    source = "standard input" if file == "-" else file
    try:
        data = sys.stdin.buffer.read(_LONGEST) if file == "-" else Path(file).read_bytes()[:_LONGEST]
    except OSError as error:
        raise cannot(Path(file), "be read", error) from None
    own = config.identity()
    opened = open_key(decode(data, source), source, own)
    path = (out or config.network_key_file).absolute()
    create_network_key(path, opened.key)
    name = _name(config, opened.sender)
    known = f"   listed here as {name}" if name else ""
    click.echo(f"network key {NetworkSecret(opened.key.secret).key_id.hex()} in {path}")
    click.echo(f"  sealed by      {fingerprint(opened.sender)}   (`mcencrypt identity` there shows the same){known}")
    click.echo(f"  to this node   {fingerprint(own.public)}")
    click.echo(f"  when           {time.strftime('%Y-%m-%d %H:%M:%S', time.localtime(opened.when))}, by their clock")
    todo = "`mcencrypt on`" if path == config.network_key_file.absolute() else f"`mcencrypt key add {path}`"
    click.echo(f"next: compare the first fingerprint with the sender by phone, then {todo}", err=True)


def _public(config: Config, to: str) -> bytes:
    """The public key of that text, or of the listed peer of that name."""
    from mcencrypt.store.peers import check_name, load_peers, parse_key

    if to.strip().endswith("="):
        return parse_key(to)
    try:
        listed = {name: key for key, name in load_peers(config.peers_path).items()}
    except FileNotFoundError:
        listed = {}
    if check_name(to) not in listed:
        raise OperatorError(
            f"--to: {to} is no public key, and no listed peer: take what `mcencrypt identity` shows there"
        )
    return listed[to]


def _name(config: Config, key: bytes) -> str | None:
    from mcencrypt.store.peers import load_peers

    try:
        return load_peers(config.peers_path).get(key)
    except (FileNotFoundError, OperatorError):
        return None
