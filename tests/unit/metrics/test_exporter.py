"""An exporter that nobody can use against the daemon."""

from __future__ import annotations

import contextlib
import json
import socket
from typing import Any

import pytest

from lab import PATIENCE
from mcencrypt.metrics import exporter
from tests.helpers.exported import exported, get, served


def test_what_is_asked_for_decides_the_answer(snapshot: dict[str, Any]) -> None:
    with served(snapshot) as address:
        assert get(address, "/metrics?x=1")[0] == 200
        assert get(address, "/")[0] == 200 and "/metrics" in get(address, "/")[2]
        assert get(address, "/status")[0] == 404
        assert get(address, method="HEAD") == (200, get(address)[1], "")
        assert get(address, method="POST")[0] == 501


def test_a_scrape_fails_while_the_daemon_does_not_answer(
    snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "DAEMON_TIMEOUT", 0.2)
    monkeypatch.setattr(exporter, "FRESH", 0.0)
    with exported(snapshot) as (daemon, address):
        daemon.answers = False
        status, _, body = get(address)
        assert status == 503 and "did not answer" in body
        daemon.channel.send(json.dumps({"id": "1", "snapshot": {"late": 1}}).encode())
        assert get(address)[0] == 503, "a late answer is not taken for that of the next question"
        daemon.answers = True
        assert get(address)[0] == 200


def test_many_scrapes_are_few_questions(snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "FRESH", PATIENCE)
    with exported(snapshot) as (daemon, address):
        assert {get(address)[0] for _ in range(20)} == {200}
        assert daemon.asked == 1


def test_silent_clients_do_not_keep_others_out(snapshot: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter._Handler, "timeout", 2 * PATIENCE)  # longer than anybody here waits
    with served(snapshot) as address, contextlib.ExitStack() as silent:
        clients = [
            silent.enter_context(socket.create_connection(address, PATIENCE)) for _ in range(2 * exporter.MAX_CLIENTS)
        ]
        assert get(address)[0] == 200
        assert clients[0].recv(1) == b"", "the oldest was closed"


def test_garbage_is_answered_and_logged_nowhere(
    snapshot: dict[str, Any], caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    with served(snapshot) as address:
        for garbage in (b"\0\xff\r\n\r\n", b"GET " + b"x" * 70000, b"GET / HTTP/9.9\r\n\r\n"):
            with socket.create_connection(address, PATIENCE) as client, contextlib.suppress(ConnectionError):
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
        assert get(address)[0] == 200
    assert not caplog.records and capfd.readouterr() == ("", "")
