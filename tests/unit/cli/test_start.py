"""A daemon that `on` starts: in the background, by systemd, or in vain. Daemons here are small programs."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from lab import PATIENCE
from mcencrypt.cli import start
from mcencrypt.cli.settings import Settings
from mcencrypt.control.client import request
from mcencrypt.errors import OperatorError
from mcencrypt.logwriter import FILE_LIMIT
from mcencrypt.store.keys import create_network_key
from mcencrypt.system import service
from tests.helpers.commands import SOURCE, fails, run

DAEMON = """#!{python}
import json, os, signal, sys
from pathlib import Path
sys.path.insert(0, {source!r})
from mcencrypt.errors import OperatorError
print("arguments", json.dumps(sys.argv[1:]), os.getcwd(), os.getsid(0) == os.getpid(), flush=True)
{before}
from mcencrypt.control.server import ControlServer
import select
seen = []
def handler(command, args):
    seen.append(command)
    if command == "status":
        return {{"pid": os.getpid(), "mode": "require", "ports": [7331], "enabled": "on" in seen, "connections": []}}
    return {{"ended": []}}
run_dir = Path(os.environ["MCENCRYPT_RUN_DIR"])
try:
    server = ControlServer(run_dir / "control.sock", handler)
except OperatorError as error:
    sys.exit(f"mcencrypt: {{error}}")
while True:
    select.select([server], [], [])
    server.ready()
"""


@pytest.fixture
def fake_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], None]]:
    """Makes `on` start a program of this test, whose beginning the caller gives."""
    program = tmp_path / "daemon-program"
    started: list[subprocess.Popen[bytes]] = []
    popen = subprocess.Popen

    def start_one(*words: Any, **options: Any) -> subprocess.Popen[bytes]:
        started.append(popen(*words, **options))
        return started[-1]

    def make(before: str) -> None:
        program.write_text(DAEMON.format(python=sys.executable, source=str(SOURCE), before=before))
        program.chmod(0o700)
        monkeypatch.setattr(start.sys, "executable", str(program))
        monkeypatch.setattr(start.subprocess, "Popen", start_one)

    yield make
    for process in started:  # one that lost a race may only now be about to take the other's place
        process.kill()
        process.wait()


@pytest.mark.subprocesses
def test_on_starts_a_daemon_in_the_background_and_waits_for_it(
    tmp_path: Path, fake_daemon: Callable[[str], None]
) -> None:
    fake_daemon("")
    result = run("on", "--run-dir", str(tmp_path / "run"))
    log = tmp_path / "state" / "daemon.log"
    assert result.exit_code == 0, result.output
    assert f"started in the background, log in {log}" in result.stdout
    said = log.read_text()
    assert f'["-m", "mcencrypt", "--config", "{tmp_path}/config.toml", "--run-dir", "{tmp_path}/run", ' in said
    assert f'"daemon", "--log-file", "{log}"]' in said
    assert said.rstrip().endswith("/ True") and stat.S_IMODE(log.stat().st_mode) == 0o600
    again = run("on")
    assert again.exit_code == 0 and "started" not in again.stdout
    assert request(tmp_path / "run", "status")["enabled"] is True


@pytest.mark.subprocesses
def test_a_daemon_that_dies_is_explained_by_its_last_line(tmp_path: Path, fake_daemon: Callable[[str], None]) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "daemon.log").write_text("mcencrypt: something from last week\n")
    fake_daemon('sys.exit("mcencrypt: network.key: not found: run keygen")')
    fails(run("on"), 1, "the daemon stopped at once: network.key: not found: run keygen")


@pytest.mark.subprocesses
def test_a_large_log_is_put_aside_before_its_daemon_starts(tmp_path: Path, fake_daemon: Callable[[str], None]) -> None:
    log = tmp_path / "state" / "daemon.log"
    log.parent.mkdir()
    log.touch()
    os.truncate(log, FILE_LIMIT // 2 + 1)
    fake_daemon('sys.exit("mcencrypt: network.key: not found: run keygen")')
    fails(run("on"), 1, "the daemon stopped at once: network.key: not found: run keygen")
    assert log.with_name("daemon.log.1").stat().st_size == FILE_LIMIT // 2 + 1 and log.stat().st_size < 1000


@pytest.mark.subprocesses
def test_a_daemon_that_dies_in_json_is_explained_by_its_message(
    tmp_path: Path, fake_daemon: Callable[[str], None]
) -> None:
    fake_daemon(r"""sys.exit('{"level": "ERROR", "message": "network.key: not found: run keygen"}')""")
    fails(run("on"), 1, "the daemon stopped at once: network.key: not found: run keygen")


@pytest.mark.subprocesses
def test_a_daemon_that_never_answers_is_stopped(
    tmp_path: Path, fake_daemon: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "state" / "daemon.log"

    def clock() -> float:
        """The deadline passes once the program runs."""
        running = log.exists() and "pid " in log.read_text()
        return time.monotonic() + (start.DEADLINE if running else 0.0)

    monkeypatch.setattr(start, "time", SimpleNamespace(monotonic=clock, sleep=time.sleep))
    fake_daemon('print("pid", os.getpid(), flush=True); signal.pause()')
    fails(run("on"), 1, "did not answer within 20 s")
    pid = int(log.read_text().rsplit("pid ", 1)[1])
    deadline = time.monotonic() + PATIENCE
    while _alive(pid):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.subprocesses
def test_two_calls_of_on_at_once_start_one_daemon(tmp_path: Path, fake_daemon: Callable[[str], None]) -> None:
    fake_daemon("")
    settings = Settings()
    config = settings.load()
    outcomes: list[Any] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(start.ensure_daemon(settings, config))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(outcomes) == 2


def test_the_systemd_unit_is_used_unless_settings_were_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Settings().custom
    monkeypatch.delenv("MCENCRYPT_CONFIG")
    assert not Settings().custom
    assert Settings(run_dir=Path("/x")).custom and Settings(config=Path("/x")).custom


@pytest.mark.subprocesses
def test_a_unit_that_fails_to_start_is_quoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    systemctl = tmp_path / "bin" / "systemctl"
    systemctl.parent.mkdir()
    systemctl.write_text("#!/bin/sh\necho 'Job for mcencrypt.service failed.' >&2\nexit 1\n")
    systemctl.chmod(0o755)
    config = Settings().load()
    monkeypatch.delenv("MCENCRYPT_CONFIG")
    monkeypatch.setenv("PATH", str(systemctl.parent), prepend=os.pathsep)
    monkeypatch.setattr(service, "is_installed", lambda unit: True)
    with pytest.raises(OperatorError, match=r"network.key: not found: make one"):
        start.ensure_daemon(Settings(), config)
    create_network_key(config.network_key_file)
    with pytest.raises(OperatorError, match=r"failed: Job for mcencrypt.service failed.; see `journalctl"):
        start.ensure_daemon(Settings(), config)
