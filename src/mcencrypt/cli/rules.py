"""``mcencrypt rules``."""

from __future__ import annotations

import click

from mcencrypt.cli.settings import Settings, command, pass_settings


@command("mcencrypt rules | less")
@pass_settings
def rules(settings: Settings) -> None:
    """Print the iptables and ip6tables rules that `on` installs. Changes nothing and needs no root."""
    from mcencrypt.kernel.firewall import Firewall

    config = settings.load()
    firewall = Firewall(config.p2p_ports(), config.queue_number, mark=config.fence_mark)
    for family, text in firewall.render().items():
        click.echo(f"# {family}")
        click.echo(text, nl=not text.endswith("\n"))
