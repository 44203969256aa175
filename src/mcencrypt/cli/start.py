"""Starting a daemon for ``mcencrypt on``, and waiting until it answers."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from mcencrypt.cli.settings import Settings
from mcencrypt.control.client import NoDaemonError, request
from mcencrypt.control.runlock import is_held
from mcencrypt.errors import OperatorError
from mcencrypt.logwriter import FILE_LIMIT, open_file
from mcencrypt.system import service

if TYPE_CHECKING:
    from mcencrypt.store.config import Config

#: Seconds that a daemon may take from its start to its first answer.
DEADLINE = 20.0
_POLL = 0.05
_PATHS = ("multichain_dir", "network_key_file", "state_dir", "run_dir")


def ensure_daemon(settings: Settings, config: Config) -> str | None:
    """Make sure that a daemon answers at `config.run_dir`. Returns how it was started, None if it ran already.

    Raises OperatorError if it could not be started, with the last line of its log, or does not answer in time.
    """
    deadline = time.monotonic() + DEADLINE
    if _answers(config):
        return None
    if is_held(config.run_dir):
        _wait(config, deadline, None)
        return None
    unit = service.unit_of(settings.netns)
    if not settings.custom and service.is_installed(unit):
        try:
            service.start(unit, DEADLINE)
        except OperatorError:
            # What is wrong most often is said better here than in the journal.
            config.p2p_ports()
            config.network_key()
            raise
        _wait(config, deadline, None)
        return f"started {unit}"
    return _start_in_background(settings, config, deadline)


def _start_in_background(settings: Settings, config: Config, deadline: float) -> str:
    path = config.state_dir.absolute() / "daemon.log"
    try:
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        if path.exists() and path.stat().st_size > FILE_LIMIT // 2:
            path.replace(path.with_name("daemon.log.1"))  # now, and not while we wait for its first lines
        fd = open_file(path)
    except OSError as error:
        raise OperatorError(f"cannot write {path}: {error.strerror}: run this as root, or set state_dir") from None
    # The daemon does not stay in this working directory, so what was relative to it is said in full.
    full = {f"MCENCRYPT_{name.upper()}": str(getattr(config, name)) for name in _PATHS}
    with open(fd, "ab") as log:
        begin = os.fstat(fd).st_size
        process = subprocess.Popen(
            [sys.executable, "-m", "mcencrypt", *settings.arguments(), "daemon", "--log-file", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
            env={**os.environ, **full},
        )
    try:
        _wait(config, deadline, process)
    except OperatorError as error:
        if process.poll() is None:
            process.terminate()
        said = _last_line(_tail(path, begin)).removeprefix("mcencrypt: ")
        if isinstance(error, NoDaemonError):
            raise OperatorError(f"the daemon stopped at once: {said or 'it left no message'}") from None
        raise OperatorError(f"{error}; the end of {path}: {said}") from None
    return f"started in the background, log in {path}"


def _wait(config: Config, deadline: float, process: subprocess.Popen[bytes] | None) -> None:
    """Until the daemon answers.

    Raises NoDaemonError if `process` ended and no other daemon is there instead, OperatorError if the deadline passed.
    """
    while not _answers(config):
        if process is not None and process.poll() is not None and not is_held(config.run_dir):
            raise NoDaemonError("the daemon stopped")
        if time.monotonic() > deadline:
            raise OperatorError(f"the daemon did not answer within {DEADLINE:g} s")
        time.sleep(_POLL)


def _answers(config: Config) -> bool:
    try:
        request(config.run_dir, "ping", timeout=DEADLINE)
    except NoDaemonError:
        return False
    return True


def _tail(path: Path, begin: int) -> str:
    """What was written to the log since `begin`, its last 4 KiB at most."""
    with path.open("rb") as stream:
        size = stream.seek(0, os.SEEK_END)
        stream.seek(max(begin, size - 4096))
        return stream.read().decode("utf-8", "replace")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    last = lines[-1] if lines else ""
    if last.startswith("{"):  # log_format = "json"
        with contextlib.suppress(ValueError, KeyError):
            return str(json.loads(last)["message"])
    return last
