"""``mcencrypt keygen`` and ``mcencrypt identity``."""

from __future__ import annotations

from pathlib import Path

import click

from mcencrypt.cli.settings import Settings, command, pass_settings


@command("mcencrypt keygen\nscp -p /etc/mcencrypt/network.key other-node:/etc/mcencrypt/")
@click.argument("file", type=click.Path(path_type=Path), required=False)
@pass_settings
def keygen(settings: Settings, file: Path | None) -> None:
    """Make a new network key in FILE, or where network_key_file says.

    All nodes of one network share this key. An existing file is never overwritten.
    """
    from mcencrypt.core.handshake import NetworkSecret
    from mcencrypt.store.keys import create_network_key

    path = file if file is not None else settings.load().network_key_file
    key_id = NetworkSecret(create_network_key(path).secret).key_id.hex()
    click.echo(f"new network key {key_id} in {path}")
    click.echo(f"next: copy it to every node of the network (`scp -p {path} NODE:{path.absolute()}`), keep it secret,")
    click.echo("then run `mcencrypt on` on each of them")


@command("mcencrypt identity")
@pass_settings
def identity(settings: Settings) -> None:
    """Print this node's public key, which is made at first use.

    Other nodes show it in `mcencrypt status` as the identity of their connections with this one.
    """
    from mcencrypt.store.keys import load_identity

    click.echo(load_identity(settings.load().state_dir).public_base64)
    click.echo("next: compare it with what `mcencrypt status` shows on this node's peers", err=True)
