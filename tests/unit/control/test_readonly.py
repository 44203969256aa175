"""The socket for a group, which only shows."""

from __future__ import annotations

import grp
import os
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.control.client import READ_ONLY, SOCKET_NAME, STATUS_SOCKET, ForbiddenError, _ask, request
from mcencrypt.control.readonly import status_server
from mcencrypt.control.runlock import RunLock
from mcencrypt.control.server import ControlServer
from mcencrypt.errors import OperatorError
from tests.helpers.served import SelectLoop

GROUP = grp.getgrgid(os.getegid()).gr_name
SOURCE = str(Path(__file__).parents[3] / "src")


@pytest.fixture
def passable() -> Iterator[Path]:
    """A folder that others can pass through; pytest's own are closed again and again."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture
def run_dir(passable: Path) -> Iterator[Path]:
    """Of a daemon with both sockets."""
    folder = passable / "run"
    seen: list[str] = []

    def handler(command: str, arguments: Any) -> dict[str, Any]:
        seen.append(command)
        return {"command": command, "arguments": dict(arguments)}

    loop = SelectLoop()
    with RunLock.acquire(folder) as lock:
        servers = [ControlServer(folder / SOCKET_NAME, handler, lock), status_server(folder, handler, lock, GROUP)]
        for server in servers:
            server.attach(loop)
        loop.start()
        yield folder
        loop.stop()
        for server in servers:
            server.close()
    assert not set(seen) - {*READ_ONLY, "off"}


def test_only_what_shows_is_done_and_nothing_is_passed_on(run_dir: Path) -> None:
    for command in READ_ONLY:
        assert _ask(run_dir / STATUS_SOCKET, command, 10, {"now": True})["arguments"] == {}
    for command in ("on", "off", "mode", "reload", "key-add", "peers-changed", "probe", "nonsense"):
        with pytest.raises(OperatorError, match="this socket only shows"):
            _ask(run_dir / STATUS_SOCKET, command, 10, {})
    assert request(run_dir, "off")["command"] == "off"  # type: ignore[typeddict-item]


def test_the_folder_is_passed_through_and_not_looked_into(run_dir: Path) -> None:
    modes = {name: stat.S_IMODE((run_dir / name).stat().st_mode) for name in ("", SOCKET_NAME, STATUS_SOCKET)}
    assert modes == {"": 0o710, SOCKET_NAME: 0o600, STATUS_SOCKET: 0o660}


@pytest.mark.subprocesses
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: asks as another user")
def test_a_member_sees_and_cannot_change_and_others_neither(run_dir: Path) -> None:
    code = (
        f"import os, sys\nsys.path.insert(0, {SOURCE!r})\n"
        "from pathlib import Path\nfrom mcencrypt.control.client import request\n"
        "os.setgroups([int(sys.argv[2])]); os.setgid(65534); os.setuid(65534)\n"
        "for command in ('status', 'off'):\n"
        "    try: print(command, request(Path(sys.argv[1]), command)['command'])\n"
        "    except Exception as problem: print(command, type(problem).__name__)\n"
    )

    def ask(group: int) -> list[str]:
        words = [sys.executable, "-c", code, str(run_dir), str(group)]
        return subprocess.run(words, capture_output=True, text=True, timeout=60, check=True).stdout.splitlines()

    assert ask(os.getegid()) == ["status status", "off ForbiddenError"]
    assert ask(65534) == ["status ForbiddenError", "off ForbiddenError"]


def test_a_group_that_does_not_exist_is_named(tmp_path: Path) -> None:
    missing = "status_group: there is no group 'nosuchgroup' here: groupadd"
    with RunLock.acquire(tmp_path / "run") as lock, pytest.raises(OperatorError, match=missing):
        status_server(tmp_path / "run", lambda command, arguments: {}, lock, "nosuchgroup")


def test_a_folder_that_cannot_be_given_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    with RunLock.acquire(tmp_path / "run") as lock:
        monkeypatch.setattr(os, "chown", refuse)
        monkeypatch.setattr(os, "chmod", refuse)
        with pytest.raises(OperatorError, match=rf"cannot be given to group .*: .*Group={GROUP} and Runtime.*=0710"):
            status_server(tmp_path / "run", lambda command, arguments: {}, lock, GROUP)


def test_a_folder_that_is_right_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where systemd has made it: the unit allows no chown(2)."""

    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    folder = tmp_path / "run"
    with RunLock.acquire(folder) as lock:
        folder.chmod(0o710)
        monkeypatch.setattr(os, "chown", refuse)
        status_server(folder, lambda command, arguments: {}, lock, GROUP).close()


def test_who_may_use_neither_socket_is_told_of_the_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def forbidden(path: Path, *_: object) -> dict[str, object]:
        raise ForbiddenError(str(path))

    monkeypatch.setattr("mcencrypt.control.client._ask", forbidden)
    with pytest.raises(ForbiddenError, match=SOCKET_NAME):
        request(tmp_path, "status")
