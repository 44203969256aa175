"""Who asks a daemon, and what it takes for an answer."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

import pytest

from lab import PATIENCE
from mcencrypt.control import client as client_module
from mcencrypt.control.client import SOCKET_NAME, VERSION, NoDaemonError, request
from mcencrypt.control.server import ControlServer
from mcencrypt.errors import OperatorError
from tests.helpers.served import handler


def test_an_answer_of_another_version_is_not_taken_for_one(run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answer = json.dumps({"ok": True, "replies": VERSION + 1, "result": {"pid": 1}}).encode() + b"\n"
    with pytest.raises(OperatorError, match=f"gives answers of version {VERSION + 1}, this command reads {VERSION}:"):
        client_module._result(answer, run_dir)
    assert client_module._result(b'{"ok": true, "result": {}}\n', run_dir) == {}, "before they had numbers: the first"


def test_no_daemon_and_a_silent_one_are_told_apart(run_dir: Path) -> None:
    with pytest.raises(NoDaemonError, match="no daemon answers at"):
        request(run_dir, "ping")
    run_dir.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as silent:
        silent.bind(str(run_dir / SOCKET_NAME))
        silent.listen(1)
        with pytest.raises(OperatorError, match=r"did not answer `ping` within 0\.2 s") as caught:
            request(run_dir, "ping", timeout=0.2)
        assert not isinstance(caught.value, NoDaemonError)


@pytest.mark.parametrize(
    "answer", [b"", b'{"ok": tr', b"hello\n", b"7\n", b'{"ok": true}\n', b'{"ok": true, "result": 1}\n']
)
def test_a_broken_answer_is_an_error_not_a_result(run_dir: Path, answer: bytes) -> None:
    run_dir.mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(run_dir / SOCKET_NAME))
        listener.listen(1)

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(1000)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(OperatorError, match=r"broke off|not a daemon"):
            request(run_dir, "ping", timeout=PATIENCE)
        thread.join(PATIENCE)


def test_a_path_too_long_for_a_socket_is_named(tmp_path: Path) -> None:
    deep = tmp_path / ("x" * 100)
    with pytest.raises(OperatorError, match="longer than 107 bytes"):
        request(deep, "ping")
    with pytest.raises(OperatorError, match="longer than 107 bytes"):
        ControlServer(deep / SOCKET_NAME, handler)
