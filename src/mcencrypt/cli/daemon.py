"""``mcencrypt daemon``."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from mcencrypt.cli.settings import Settings, command, pass_settings
from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.store.config import Config

log = logging.getLogger("mcencrypt")


@command("mcencrypt daemon --config /etc/mcencrypt/config.toml\nmcencrypt daemon --netns docker:node1 --wait")
@click.option("--wait", is_flag=True, help="With --netns: wait for a container or namespace that is not there yet.")
@click.option(
    "--log-file", type=click.Path(path_type=Path), metavar="FILE",
    help="Log to FILE, and not to stderr. Beyond 8 MB it becomes FILE.1, and a new one begins.",
)  # fmt: skip
@pass_settings
def daemon(settings: Settings, wait: bool, log_file: Path | None) -> int:
    """Run in the foreground, logging to stderr, until SIGTERM or SIGINT.

    Starts with encryption as it was left, on at first. A service manager runs this; by hand, `mcencrypt on` is
    simpler. With --netns it serves another network namespace, a container's for instance, and waits for the next one
    when that goes away.
    """
    from mcencrypt import logs

    config = settings.load()
    if wait and not config.netns:
        raise click.UsageError("--wait needs --netns: without it there is nothing to wait for")
    try:
        logs.setup(config.log_level, form=config.log_format, file=log_file)
    except OSError as error:
        raise OperatorError(f"cannot write {log_file}: {error.strerror}: name another --log-file") from None
    if config.log_format == "text":
        return _run(config, settings.load, wait)
    try:
        return _run(config, settings.load, wait)
    # Whoever reads JSON must be able to read why there is no daemon.
    except OperatorError as error:
        log.error(str(error))
    except Exception:
        log.exception("internal error; the daemon ends")
    return 1


def _run(config: Config, reread: Callable[[], Config], wait: bool) -> int:
    if config.netns:
        from mcencrypt.daemon.elsewhere import serve

        return serve(config, reread, config.netns, wait)
    from mcencrypt.daemon.daemon import run

    return run(config, reread)
