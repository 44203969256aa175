"""``mcencrypt install`` and ``mcencrypt uninstall``."""

from __future__ import annotations

import os
from pathlib import Path

import click

from mcencrypt.cli.settings import Settings, command, pass_settings
from mcencrypt.errors import OperatorError
from mcencrypt.version import VERSION

_root_option = click.option(
    "--root",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Work on the files below DIR and leave this system alone, for building packages and images.",
)


@command("mcencrypt install\nmcencrypt install --root /srv/image")
@_root_option
@pass_settings
def install(settings: Settings, root: Path | None) -> None:
    """Make this a service of the system: systemd unit, configuration, shell completion, man page.

    The service starts at boot, before the network; this command does not start it. Running it again repairs what is
    missing and leaves the configuration as it is.
    """
    from mcencrypt.cli import cli
    from mcencrypt.system import files, layout, service, unit

    if root is None:
        _may("install")
        service.check()
    here = layout.local()
    top = Path("/") if root is None else root.absolute()
    units = unit.render_all(here.command, unit.running_from())
    changed = False
    for file in files.contents(here, units, cli, VERSION):
        result = files.put(file, top)
        click.echo(f"{result:<9} {files.below(top, file.path)}")
        changed |= result == "wrote" and file.path == here.unit
    if here.link is not None:
        result = files.put_link(here.link, here.command[0], top)
        click.echo(f"{result:<9} {files.below(top, here.link)}")
    if root is None:
        service.enable()
        click.echo(_next(settings, restart=changed and service.is_active()))


@command("mcencrypt uninstall\nmcencrypt uninstall --purge")
@click.option("--purge", is_flag=True, help="Remove keys, state and configuration too.")
@_root_option
@pass_settings
def uninstall(settings: Settings, purge: bool, root: Path | None) -> None:
    """Switch off, stop, and take out what `install` has put in place. Connections are reset, new ones are plaintext.

    Keys, state and configuration stay, unless --purge is given.
    """
    from mcencrypt.cli import cli
    from mcencrypt.cli.removing import end_all, end_instances, purge_data
    from mcencrypt.system import files, layout, service, unit

    here = layout.local()
    top = Path("/") if root is None else root.absolute()
    if root is None:
        _may("uninstall")
        end_instances(settings)
        end_all(settings.load())
        for one in (service.UNIT, service.FENCE):
            service.disable(one)
        service.stop(service.FENCE)
    units = dict.fromkeys((unit.UNIT, unit.INSTANCES, unit.FENCE), "")
    paths = [file.path for file in files.contents(here, units, cli, "")]
    for path in paths:
        if path != layout.CONFIG and files.remove(path, top):
            click.echo(f"removed   {files.below(top, path)}")
    link = here.link
    if link is not None and files.below(top, link).is_symlink() and files.remove(link, top):
        click.echo(f"removed   {files.below(top, link)}")
    if root is None:
        service.reload()
    for left in purge_data(top, purge):
        click.echo(left)


def _may(what: str) -> None:
    from mcencrypt.system import layout

    if layout.is_packaged():
        how = "is in place: nothing to do" if what == "install" else f"goes with it: {layout.REMOVE}"
        raise OperatorError(f"this mcencrypt is part of a package of the system, and its service {how}")
    if os.geteuid() != 0:
        raise OperatorError(f"`mcencrypt {what}` changes the system: run it as root, or give --root DIR")


def _next(settings: Settings, restart: bool) -> str:
    """What the operator has to do now."""
    if restart:
        return "next: systemctl restart mcencrypt (connections are reset and come back encrypted)"
    try:
        config = settings.load()
        config.p2p_ports()
    except OperatorError as error:
        return f"next: {error}; then `mcencrypt on`"
    if not config.network_key_file.exists():
        key = config.network_key_file
        return f"next: copy {key} from another node, or `mcencrypt keygen` on the first; then `mcencrypt on`"
    return "next: mcencrypt on"
