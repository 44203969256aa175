"""``mcencrypt daemon``."""

from __future__ import annotations

import logging

from mcencrypt.cli.settings import Settings, command, pass_settings
from mcencrypt.errors import OperatorError

log = logging.getLogger("mcencrypt")


@command("mcencrypt daemon --config /etc/mcencrypt/config.toml")
@pass_settings
def daemon(settings: Settings) -> int:
    """Run in the foreground, logging to stderr, until SIGTERM or SIGINT.

    Starts with encryption as it was left, on at first. A service manager runs this; by hand, `mcencrypt on` is
    simpler.
    """
    from mcencrypt import logs

    config = settings.load()
    logs.setup(config.log_level, form=config.log_format)
    from mcencrypt.shell.daemon import run

    if config.log_format == "text":
        return run(config)
    try:
        return run(config)
    # Whoever reads JSON must be able to read why there is no daemon.
    except OperatorError as error:
        log.error(str(error))
    except Exception:
        log.exception("internal error; the daemon ends")
    return 1
