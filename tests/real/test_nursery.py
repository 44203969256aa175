"""Copies of the nursery are, to whoever looks, the programs that would have been started in their place."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Host, Lab, nursery, wait_for
from lab.nursery import Copy, importable
from mcencrypt.errors import OperatorError
from tests.helpers.nodes import needs_lab

pytestmark = needs_lab

#: Of /proc/PID/status. How many are queued for the user (SigQ), others have a part in.
SIGNALS = ("SigPnd", "SigBlk", "SigIgn", "SigCgt")


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    with Lab() as lab:
        yield lab.host("h")


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[nursery.Nursery]:
    """A nursery of the test's own."""
    own = nursery.Nursery()
    monkeypatch.setattr(nursery, "_wanted", True)
    monkeypatch.setattr(nursery, "_nursery", own)
    yield own
    own.close()


def words(*arguments: object) -> list[str]:
    return [sys.executable, "-m", *map(str, arguments)]


def started(argv: list[str], out: Path, env: dict[str, str] | None = None, **how: object) -> nursery.Started:
    with open(out, "wb") as file, open(os.devnull) as nothing:
        files = nothing.fileno(), file.fileno(), file.fileno()
        return nursery.start(argv, files, env=os.environ | importable() | (env or {}), **how)  # type: ignore[arg-type]


def test_a_copy_is_what_would_have_been_started(made: nursery.Nursery, host: Host, tmp_path: Path) -> None:
    """The same of both is asked of the kernel: command line, name, folder, session, namespace, files, environment."""
    argv, found = words("lab.apps", "echo", 7000), []
    for how in ("copied", "started"):
        made._decisive |= {} if how == "copied" else {"PYTHON": "another"}
        with host.enter():
            running = started(argv, tmp_path / how, {"LAB_WORD": "käse"}, cwd=tmp_path, session=True)
            there = os.readlink("/proc/thread-self/ns/net")
        assert isinstance(running, Copy if how == "copied" else subprocess.Popen)
        try:
            wait_for(lambda how=how: "listening" in (tmp_path / how).read_text(), "the program to listen")
            proc = Path(f"/proc/{running.pid}")
            assert os.readlink(proc / "ns/net") == there != os.readlink("/proc/self/ns/net")
            descriptors = {name: os.readlink(proc / "fd" / name) for name in sorted(os.listdir(proc / "fd"))}
            status = (proc / "status").read_text().splitlines()
            found.append(
                {
                    "cmdline": (proc / "cmdline").read_bytes().rstrip(b"\0"),
                    "comm": (proc / "comm").read_text(),
                    "exe": os.readlink(proc / "exe"),
                    "cwd": os.readlink(proc / "cwd"),
                    "leads its session": os.getsid(running.pid) == os.getpgid(running.pid) == running.pid,
                    "descriptors": [where.partition(":")[0].removesuffix(how) for where in descriptors.values()],
                    "signals": [line for line in status if line.startswith(SIGNALS)],
                }
            )
        finally:
            running.send_signal(signal.SIGKILL)
            assert running.wait(60) == -signal.SIGKILL
    copied, other = found
    assert copied == other


def test_arguments_environment_and_exit_codes(made: nursery.Nursery, tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text("nonsense = 1\n")
    for argv, code, said in (
        (words("mcencrypt", "--version"), 0, "mcencrypt "),
        (words("mcencrypt", "frobnicate"), 2, "No such command 'frobnicate'"),
        (words("mcencrypt", "--config", config, "status"), 1, str(config)),
    ):
        running = started(argv, tmp_path / "out")
        assert isinstance(running, Copy) and running.wait(60) == running.poll() == code
        assert said in (tmp_path / "out").read_text()
    running = started(words("mcencrypt", "status"), tmp_path / "out", {"MCENCRYPT_CONFIG": str(config)})
    assert running.wait(60) == 1 and str(config) in (tmp_path / "out").read_text()


def test_who_needs_another_interpreter_starts_one(made: nursery.Nursery, tmp_path: Path) -> None:
    for variable in ({"MCENCRYPT_INTERPRETED": "1"}, {"PYTHONPATH": "/elsewhere"}, {"LC_ALL": "POSIX"}):
        assert not made.can(words("mcencrypt", "--version"), os.environ | importable() | variable), variable
    assert not made.can([sys.executable, "-c", "pass"], os.environ | importable())
    assert not made.can(words("json.tool"), os.environ | importable())
    running = started(words("mcencrypt", "--version"), tmp_path / "out", {"MCENCRYPT_INTERPRETED": "1"})
    assert running.wait(60) == 0 and "(interpreted)" in (tmp_path / "out").read_text()


def test_copies_outlive_their_nursery_and_say_so(tmp_path: Path) -> None:
    own = nursery.Nursery()
    with open(tmp_path / "out", "wb") as file, open(os.devnull) as nothing:
        files = nothing.fileno(), file.fileno(), file.fileno()
        argv = words("lab.apps", "echo", 0)
        running = own.start(argv, os.environ | importable(), files)
    own.close()
    try:
        os.kill(running.pid, 0)
        with pytest.raises(OperatorError, match="is gone"):
            running.wait(60)
    finally:
        os.kill(running.pid, signal.SIGKILL)
