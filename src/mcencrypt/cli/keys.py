"""``mcencrypt keygen`` and ``mcencrypt identity``."""

from __future__ import annotations

import os
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

    used = _used(settings) if file is not None else settings.load().network_key_file
    path = file if file is not None else used
    assert path is not None
    key_id = NetworkSecret(create_network_key(path).secret).key_id.hex()
    click.echo(f"new network key {key_id} in {path}")
    click.echo("\n".join(_next(path.absolute(), used)))


def _used(settings: Settings) -> Path | None:
    """Where this node has its network key; None if the configuration does not say."""
    from mcencrypt.errors import OperatorError

    try:
        return settings.load().network_key_file
    except OperatorError:
        return None


def _next(path: Path, used: Path | None) -> list[str]:
    """What is to be done with a new key, in the place where it was made."""
    if used is not None and path != used.absolute() and os.path.exists(used):
        return [
            "next: this node has a network key already. To change it without an outage copy the new one to every node,",
            f"then `mcencrypt key add {path}` on each of them, and see `mcencrypt key --help`",
        ]
    if in_container():
        return [
            "next: this is a container: the file is on the host where that folder is mounted from. Keep it secret,",
            "mode 0600 and owner root, and copy it to the other hosts, for their containers to mount it as",
            "network_key_file, or `mcencrypt key seal` it to each of them. Then start the containers",
        ]
    return [
        f"next: copy it to every node of the network (`scp -p {path} NODE:{path}`), keep it secret,",
        "then run `mcencrypt on` on each of them. Where there is no ssh: `mcencrypt key seal --help`",
    ]


def in_container() -> bool:
    """Whether this process is in a container, as far as engines leave signs of it."""
    if Path("/run/systemd/system").is_dir():
        return False  # a machine of its own, as far as its operator is concerned
    marks = (Path("/.dockerenv"), Path("/run/.containerenv"))
    return any(mark.exists() for mark in marks) or "KUBERNETES_SERVICE_HOST" in os.environ


@command("mcencrypt identity")
@pass_settings
def identity(settings: Settings) -> None:
    """Print this node's public key, which is made at first use.

    Other nodes show it in `mcencrypt status` as the identity of their connections with this one.
    """
    from mcencrypt.store.sealed import fingerprint

    own = settings.load().identity()
    click.echo(own.public_base64)
    click.echo(f"fingerprint, to be compared by phone: {fingerprint(own.public)}", err=True)
    click.echo("next: compare it with what `mcencrypt status` shows on this node's peers", err=True)
