"""The control socket, over real sockets."""

from __future__ import annotations

import contextlib
import json
import os
import select
import socket
import stat
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from lab import PATIENCE
from mcencrypt.control import client as client_module
from mcencrypt.control import server as server_module
from mcencrypt.control.client import SOCKET_NAME, VERSION, request
from mcencrypt.control.runlock import LOCK_NAME, LockHeldError, is_held
from mcencrypt.control.server import ControlServer, Later
from mcencrypt.errors import OperatorError
from tests.helpers.served import handler


def raw(run_dir: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connection.settimeout(PATIENCE)
    connection.connect(str(run_dir / SOCKET_NAME))
    return connection


def read_reply(connection: socket.socket) -> dict[str, Any]:
    with connection.makefile("rb") as stream:
        return json.loads(stream.readline())


def test_a_command_arrives_and_its_result_comes_back(server: ControlServer, run_dir: Path) -> None:
    assert request(run_dir, "echo", now=True, name="Ä\n") == {"now": True, "name": "Ä\n"}


def test_a_reply_of_many_megabytes_arrives_whole(server: ControlServer, run_dir: Path) -> None:
    assert len(request(run_dir, "large", count=20_000)["connections"]) == 20_000


def test_an_operator_error_reaches_the_operator_and_other_errors_go_to_the_log(
    server: ControlServer, run_dir: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(OperatorError, match=r"^not now: try later$"):
        request(run_dir, "refuse")
    with pytest.raises(OperatorError, match="its log says why") as caught:
        request(run_dir, "bug")
    assert "secret detail" not in str(caught.value)
    assert "secret detail" in caplog.text
    assert request(run_dir, "echo") == {}


@pytest.mark.parametrize(
    "line", [b"", b"{", b"[]", b"7", b"{}", b'{"command": 7}', b"\xff\xfe", b"[" * 60_000], ids=range(8)
)
def test_what_is_no_request_is_answered_and_the_connection_lives(
    server: ControlServer, run_dir: Path, line: bytes
) -> None:
    with raw(run_dir) as connection:
        connection.sendall(line + b"\n")
        reply = read_reply(connection)
        assert reply["ok"] is False and "one JSON object" in reply["error"]
        connection.sendall(b'{"command": "echo"}\n')
        assert read_reply(connection) == {"ok": True, "replies": VERSION, "result": {}}


def test_a_daemon_of_another_version_does_nothing_and_says_so(
    server: ControlServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "VERSION", VERSION + 1)
    with pytest.raises(OperatorError, match=rf"reads answers of version {VERSION + 1}, this daemon gives {VERSION}:"):
        request(run_dir, "bug")  # and not its log


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_line_without_end_is_cut_off(server: ControlServer, run_dir: Path, end: bytes) -> None:
    with raw(run_dir) as connection:
        connection.sendall(b"x" * server_module.MAX_LINE + end)
        with connection.makefile("rb") as stream:
            reply = json.loads(stream.readline())
            assert reply["ok"] is False and str(server_module.MAX_LINE) in reply["error"]
            # A reset instead of an end: what was sent too much lies there unread.
            with contextlib.suppress(ConnectionResetError):
                assert stream.read() == b""


def test_requests_in_pieces_and_several_at_once_are_answered(server: ControlServer, run_dir: Path) -> None:
    with raw(run_dir) as connection:
        connection.sendall(b'{"command": "ec')
        assert request(run_dir, "echo", other=1) == {"other": 1}
        connection.sendall(b'ho", "n": 1}\n{"command": "echo", "n": 2}\n{"command": "refuse"}\n')
        connection.shutdown(socket.SHUT_WR)
        with connection.makefile("rb") as stream:
            replies = [json.loads(line) for line in stream]
    assert [reply.get("result") for reply in replies] == [{"n": 1}, {"n": 2}, None]


def test_a_client_that_does_not_read_holds_nobody_up(server: ControlServer, run_dir: Path) -> None:
    with raw(run_dir) as deaf:
        deaf.sendall(b'{"command": "large", "count": 20000}\n' * 50)
        assert request(run_dir, "echo", timeout=PATIENCE, n=1) == {"n": 1}


def test_a_result_that_comes_later_holds_up_nobody_but_its_client(run_dir: Path) -> None:
    promised: list[Later] = []

    def slow(command: str, args: dict[str, Any]) -> dict[str, Any] | Later:
        if command != "slow":
            return args
        promised.append(Later())
        if args.get("at_once"):
            promised[-1].result({"slow": 0})
        return promised[-1]

    server = ControlServer(run_dir / SOCKET_NAME, slow)

    def turn(until: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not until():
            assert time.monotonic() < deadline
            select.select([server.fileno()], [], [], 0.1)
            server.ready()

    def lines(connection: socket.socket, count: int) -> list[dict[str, Any]]:
        received = bytearray()
        connection.setblocking(False)

        def complete() -> bool:
            with contextlib.suppress(BlockingIOError):
                received.extend(connection.recv(65536))
            return received.count(b"\n") >= count

        turn(complete)
        return [json.loads(line) for line in received.splitlines()]

    try:
        with raw(run_dir) as patient, raw(run_dir) as other, raw(run_dir) as gone:
            patient.sendall(b'{"command": "slow"}\n{"command": "echo", "n": 2}\n')
            patient.shutdown(socket.SHUT_WR)
            turn(lambda: len(promised) == 1)
            gone.sendall(b'{"command": "slow"}\n')
            turn(lambda: len(promised) == 2)
            other.sendall(b'{"command": "echo", "n": 1}\n{"command": "slow", "at_once": 1}\n')
            assert [one["result"] for one in lines(other, 2)] == [{"n": 1}, {"slow": 0}]
            gone.close()
            turn(lambda: len(server._clients) == 2)
            promised[0].error(OperatorError("it took too long"))
            promised[1].result({"to": "nobody"})
            assert lines(patient, 2) == [
                {"ok": False, "error": "it took too long"}, {"ok": True, "replies": VERSION, "result": {"n": 2}}
            ]  # fmt: skip
            turn(lambda: len(server._clients) == 1)
    finally:
        server.close()


def test_one_client_too_many_closes_the_oldest(server: ControlServer, run_dir: Path) -> None:
    clients = [raw(run_dir) for _ in range(server_module.MAX_CLIENTS)]
    try:
        for client in clients:
            client.sendall(b'{"command": "echo"}\n')
            assert read_reply(client)["ok"]
        assert request(run_dir, "echo", n=1) == {"n": 1}
        assert clients[0].recv(1) == b""
        clients[1].sendall(b'{"command": "echo"}\n')
        assert read_reply(clients[1])["ok"]
    finally:
        for client in clients:
            client.close()


def test_the_socket_is_private_and_leaves_no_trace(run_dir: Path) -> None:
    before = os.umask(0)
    try:
        server = ControlServer(run_dir / SOCKET_NAME, handler)
    finally:
        os.umask(before)
    assert stat.S_IMODE((run_dir / SOCKET_NAME).stat().st_mode) == 0o600
    assert stat.S_IMODE((run_dir / LOCK_NAME).stat().st_mode) == 0o600
    server.close()
    server.close()
    assert not (run_dir / SOCKET_NAME).exists()
    assert not is_held(run_dir)


def test_other_users_are_refused_by_both_ends(
    server: ControlServer, run_dir: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    real = client_module.peer_uid
    in_server_thread = server._loop._thread  # type: ignore[union-attr]

    def stranger_at_the_server(connection: socket.socket) -> int:
        return 4711 if threading.current_thread() is in_server_thread else real(connection)

    monkeypatch.setattr(server_module, "peer_uid", stranger_at_the_server)
    with pytest.raises(OperatorError, match="only root"):
        request(run_dir, "echo")
    assert "4711" in caplog.text

    def stranger_at_the_client(connection: socket.socket) -> int:
        return real(connection) if threading.current_thread() is in_server_thread else 4711

    monkeypatch.setattr(client_module, "peer_uid", stranger_at_the_client)
    with pytest.raises(OperatorError, match="belongs to another user"):
        request(run_dir, "echo")


def test_a_living_daemons_socket_is_not_taken(server: ControlServer, run_dir: Path) -> None:
    with pytest.raises(LockHeldError, match=rf"already runs in {run_dir} \(pid {os.getpid()}\)"):
        ControlServer(run_dir / SOCKET_NAME, handler)
    assert request(run_dir, "echo", n=1) == {"n": 1}


def test_a_file_that_is_no_socket_is_not_removed(run_dir: Path) -> None:
    run_dir.mkdir(mode=0o700)
    (run_dir / SOCKET_NAME).write_text("precious")
    with pytest.raises(OperatorError, match="cannot make the control socket"):
        ControlServer(run_dir / SOCKET_NAME, handler)
    assert (run_dir / SOCKET_NAME).read_text() == "precious"
    assert not is_held(run_dir)
