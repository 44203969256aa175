"""``mcencrypt on`` and ``mcencrypt off``, with a daemon and without."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.cli import offline
from mcencrypt.control import runlock
from mcencrypt.control.runlock import RunLock
from mcencrypt.errors import OperatorError
from mcencrypt.store.position import read_switch, write_switch
from tests.helpers.commands import fails, run, status_result
from tests.helpers.served import serving


def test_off_passes_now_and_says_what_goes_on(tmp_path: Path) -> None:
    seen: list[tuple[str, dict[str, Any]]] = []

    def handler(command: str, args: dict[str, Any]) -> dict[str, Any]:
        seen.append((command, args))
        reset = ["10.0.0.2:40000"] if args.get("now") else []
        return status_result(enabled=False) if command == "status" else {"reset": reset}

    with serving(tmp_path / "run", handler):
        result = run("off")
        now = run("off", "--now")
    assert result.exit_code == 0 and "reset 1" not in result.stdout
    assert "reset 1 encrypted connection, to come back in plaintext: 10.0.0.2:40000\n" in now.stdout
    assert "400 encrypted connections go on until closed" in result.stdout
    assert [args for command, args in seen if command == "off"] == [{"now": False}, {"now": True}]


def test_on_with_a_daemon_asks_it(tmp_path: Path) -> None:
    seen: list[str] = []

    def handler(command: str, args: dict[str, Any]) -> dict[str, Any]:
        seen.append(command)
        ended = [{"peer": f"10.0.0.{last}:40000", "local": "10.0.0.1:7331", "allowed": False} for last in range(2, 14)]
        return status_result() if command == "status" else {"ended": ended if len(seen) > 3 else []}

    with serving(tmp_path / "run", handler):
        result = run("on")
        assert result.exit_code == 0 and seen == ["ping", "on", "status"]
        assert result.stdout == "mcencrypt is on (require) for ports 7331, 8571; daemon pid 4242\n"
        again = run("on").stdout.splitlines()[1]
    assert again.startswith("ended 12 plaintext connections, to come back encrypted: 10.0.0.2:40000, 10.0.0.3:40000, ")
    assert again.endswith("10.0.0.11:40000 and 2 more")


def test_a_daemon_that_refuses_is_quoted(tmp_path: Path) -> None:
    def handler(command: str, args: dict[str, Any]) -> dict[str, Any]:
        if command in ("on", "off"):
            raise OperatorError("iptables is missing: install it")
        return {}

    with serving(tmp_path / "run", handler):
        fails(run("on"), 1, "iptables is missing: install it")
        fails(run("off"), 1, "iptables is missing: install it")


class FakeGate:
    """The ports' gate; what was done to it, with the connections that are closed between."""

    done: list[Any]
    closed = True

    def __init__(self, ports: tuple[int, ...], queue_number: int, mark: int) -> None:
        self.done.append((ports, queue_number, mark))

    def is_closed(self) -> bool:
        return FakeGate.closed

    def open(self) -> None:
        FakeGate.closed = False
        self.done.append("opened")


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> type[FakeGate]:
    FakeGate.done, FakeGate.closed = [], True
    monkeypatch.setattr("mcencrypt.kernel.gate.Gate", FakeGate)
    monkeypatch.setattr(offline, "_close_connections", lambda ports: FakeGate.done.append("connections closed"))
    return FakeGate


def test_off_without_a_daemon_opens_the_ports_last_and_remembers(tmp_path: Path, gate: type[FakeGate]) -> None:
    write_switch(tmp_path / "state", True)
    for _ in range(2):
        result = run("off")
        assert result.exit_code == 0 and "no daemon runs" in result.stdout
        assert not read_switch(tmp_path / "state") and not runlock.is_held(tmp_path / "run")
    made = ((7331, 8571), 27971, 0x20)
    assert gate.done == [made, "connections closed", "opened", made]


def test_the_ports_stay_closed_if_old_connections_cannot_be(
    tmp_path: Path, gate: type[FakeGate], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(ports: tuple[int, ...]) -> None:
        raise OperatorError("cannot close the old connections: run this as root")

    monkeypatch.setattr(offline, "_close_connections", refuse)
    fails(run("off"), 1, "cannot close")
    assert gate.closed
    assert read_switch(tmp_path / "state")


def test_off_waits_for_a_daemon_that_holds_the_lock_but_does_not_answer_yet(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mcencrypt.cli.switch._SWITCH_TIMEOUT", 0.3)
    with RunLock.acquire(tmp_path / "run"):
        fails(run("off"), 1, "already runs", f"pid {os.getpid()}")
