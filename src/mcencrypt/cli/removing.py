"""Leaving a machine: the daemon ends, the rules go, and then the data if that is asked for."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from mcencrypt.errors import OperatorError
from mcencrypt.system import service

if TYPE_CHECKING:
    from mcencrypt.cli.settings import Settings
    from mcencrypt.store.config import Config

#: Seconds that connections and the daemon may take to end.
PATIENCE = 20.0
_POLL = 0.05


def end_all(config: Config, unit: str = service.UNIT) -> None:
    """Switch off, reset what is encrypted, and end the daemon, whoever started it.

    Raises OperatorError; the rules then stay, and nothing leaks.
    """
    from mcencrypt.cli.switch import switch_off
    from mcencrypt.control.client import NoDaemonError, request

    def drained() -> bool:
        try:
            return not request(config.run_dir, "status")["draining"]
        except NoDaemonError:
            return True

    try:
        request(config.run_dir, "off", timeout=PATIENCE, now=True)
    except OperatorError:
        pass  # no daemon, or one that waits for its namespace: what is left is done below, without it
    else:
        _await(drained, "connections do not end: close them, or stop multichaind, and try again")
    service.stop(unit)  # before other daemons are looked for, or it would be started again
    with contextlib.suppress(NoDaemonError):
        _end(config, request(config.run_dir, "ping")["pid"])
    switch_off(config, True)  # whatever a daemon that did not answer has left


def end_instances(settings: Settings) -> None:
    """`end_all` for every daemon that serves another network namespace with its files in the usual place."""
    from mcencrypt.system import layout

    folder = layout.RUN / "netns"
    for name in sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else ():
        unit = service.unit_of(name)
        try:
            end_all(replace(settings, netns=name, run_dir=None).load(), unit)
        except OperatorError as error:
            raise OperatorError(f"{name}: {error}") from None
        service.disable(unit)


def _end(config: Config, pid: int) -> None:
    """End a daemon that no service manager keeps."""
    from mcencrypt.control.runlock import is_held

    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    _await(lambda: not is_held(config.run_dir), f"the daemon (pid {pid}) does not stop: end it, and try again")


def purge_data(root: Path, purge: bool) -> Iterator[str]:
    """Remove what a service leaves behind, keys and configuration only if `purge`; yields a line for each folder."""
    from mcencrypt.system import files, layout

    folders = {layout.RUN: True, layout.STATE: purge, layout.CONFIG.parent: purge}
    for folder, goes in folders.items():
        path = files.below(root, folder)
        if not path.is_dir() or path.is_symlink():
            continue
        if not goes:
            yield f"left      {path}"
            continue
        try:
            shutil.rmtree(path)
        except OSError as error:
            raise OperatorError(f"{path} cannot be removed: {error.strerror}: remove it by hand") from None
        yield f"removed   {path}"


def _await(done: Callable[[], bool], problem: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise OperatorError(problem)
        time.sleep(_POLL)
