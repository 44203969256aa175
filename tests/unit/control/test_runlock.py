"""The lock on a run directory: one daemon in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from mcencrypt.control.client import SOCKET_NAME, NoDaemonError, request
from mcencrypt.control.runlock import LOCK_NAME, LockHeldError, RunLock, is_held
from mcencrypt.control.server import ControlServer
from mcencrypt.errors import OperatorError
from tests.helpers.served import handler


@pytest.mark.subprocesses
def test_a_killed_daemons_socket_is_taken_over(run_dir: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from mcencrypt.control.server import ControlServer\n"
        "server = ControlServer(Path(sys.argv[1]), lambda command, args: {})\n"
        "print('up', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(run_dir / SOCKET_NAME)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"up\n"
        assert is_held(run_dir)
        with pytest.raises(LockHeldError, match=f"pid {other.pid}"):
            RunLock.acquire(run_dir)
        other.kill()
    assert (run_dir / SOCKET_NAME).exists()
    assert not is_held(run_dir)
    with pytest.raises(NoDaemonError, match="start it with `mcencrypt on`"):
        request(run_dir, "ping")
    ControlServer(run_dir / SOCKET_NAME, handler).close()


def test_a_run_dir_that_others_can_write_is_refused(run_dir: Path) -> None:
    run_dir.mkdir()
    run_dir.chmod(0o777)
    with pytest.raises(OperatorError, match="chmod go-w"):
        RunLock.acquire(run_dir)


def test_asking_for_the_lock_does_not_take_it(run_dir: Path) -> None:
    assert not is_held(run_dir)
    with RunLock.acquire(run_dir):
        assert is_held(run_dir)
        assert (run_dir / LOCK_NAME).read_text() == f"{os.getpid()}\n"
    assert not is_held(run_dir)
    RunLock.acquire(run_dir).release()
