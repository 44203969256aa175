"""``mcencrypt fence``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mcencrypt.cli.settings import Settings, command, pass_settings
from mcencrypt.errors import OperatorError


@command("mcencrypt fence")
@pass_settings
def fence(settings: Settings) -> None:
    """Close the P2P ports until a daemon opens them, unless mcencrypt was switched off.

    For the system's start: mcencrypt-fence.service does this before the network, so that the ports are closed even if
    the daemon cannot start. Where the configuration cannot be read, the ports are closed that were used last.
    `mcencrypt on` opens them for encrypted connections, `mcencrypt off` for all.
    """
    from mcencrypt.kernel.gate import Gate
    from mcencrypt.store.config import Config
    from mcencrypt.store.position import read_ports, read_switch

    problem = ""
    try:
        config = settings.load()
    except OperatorError as error:
        # all but the folder in which the ports are remembered is as it is by default
        config, problem = Config(state_dir=Path(os.environ.get("MCENCRYPT_STATE_DIR") or Config.state_dir)), str(error)
    if not read_switch(config.state_dir):
        click.echo("mcencrypt is switched off: the ports stay open")
        return
    if config.netns:
        raise OperatorError("the fence of another namespace is put up by its daemon: `mcencrypt daemon --netns ...`")
    ports: tuple[int, ...] = ()
    if not problem:
        try:
            ports = config.p2p_ports()
        except OperatorError as error:
            problem = str(error)
    ports = ports or _last(config.state_dir, problem, read_ports(config.state_dir))
    Gate(ports, config.queue_number, config.fence_mark).close()
    click.echo(f"ports {', '.join(map(str, ports))} are closed until a daemon opens them")


def _last(state_dir: Path, problem: str, ports: tuple[int, ...]) -> tuple[int, ...]:
    """The ports of the last time, because of a problem. Raises OperatorError if they are not known either."""
    if not ports:
        raise OperatorError(f"no port is closed, because none is known from an earlier start either: {problem}")
    click.echo(f"mcencrypt: {problem}; closing the ports of the last time", err=True)
    return ports
