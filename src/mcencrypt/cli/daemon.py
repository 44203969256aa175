"""``mcencrypt daemon``."""

from __future__ import annotations

from mcencrypt.cli.settings import Settings, command, pass_settings


@command("mcencrypt daemon --config /etc/mcencrypt/config.toml")
@pass_settings
def daemon(settings: Settings) -> int:
    """Run in the foreground, logging to stderr, until SIGTERM or SIGINT.

    Starts with encryption as it was left, on at first. A service manager runs this; by hand, `mcencrypt on` is
    simpler.
    """
    from mcencrypt import logs

    config = settings.load()
    logs.setup(config.log_level)
    from mcencrypt.shell.daemon import run

    return run(config)
