"""``mcencrypt fence``: which ports it closes, and when it leaves them open."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mcencrypt.store.position import read_ports, write_ports, write_switch
from tests.helpers.commands import fails, run

PORTS = (7331, 8571)


class FakeGate:
    """What was closed."""

    closed: list[Any]

    def __init__(self, ports: tuple[int, ...], queue_number: int, mark: int) -> None:
        self._made = (tuple(ports), queue_number, mark)

    def close(self) -> None:
        FakeGate.closed.append(self._made)


@pytest.fixture(autouse=True)
def gate(monkeypatch: pytest.MonkeyPatch) -> type[FakeGate]:
    FakeGate.closed = []
    monkeypatch.setattr("mcencrypt.kernel.gate.Gate", FakeGate)
    return FakeGate


def test_the_configured_ports_are_closed(gate: type[FakeGate]) -> None:
    done = run("fence")
    assert done.exit_code == 0
    assert done.stdout == "ports 7331, 8571 are closed until a daemon opens them\n"
    assert gate.closed == [(PORTS, 27971, 0x20)]


def test_switched_off_is_switched_off(tmp_path: Path, gate: type[FakeGate]) -> None:
    write_switch(tmp_path / "state", False)
    assert "the ports stay open" in run("fence").stdout
    assert gate.closed == []


@pytest.mark.parametrize("wrong", ["mode = [", 'chains = ["no-such-chain"]\nports = []'])
def test_a_wrong_configuration_closes_the_ports_of_the_last_time(
    tmp_path: Path, gate: type[FakeGate], monkeypatch: pytest.MonkeyPatch, wrong: str
) -> None:
    monkeypatch.setenv("MCENCRYPT_STATE_DIR", str(tmp_path / "state"))
    file = tmp_path / "wrong.toml"
    file.write_text(wrong)
    fails(run("--config", file, "fence"), 1, "no port is closed", str(file) if "mode" in wrong else "no-such-chain")
    write_ports(tmp_path / "state", (7777, 7778))
    done = run("--config", file, "fence")
    assert done.exit_code == 0 and "closing the ports of the last time" in done.stderr
    assert gate.closed == [((7777, 7778), 27971, 0x20)]
    write_switch(tmp_path / "state", False)
    assert "the ports stay open" in run("--config", file, "fence").stdout


def test_another_namespace_is_its_daemons_business(gate: type[FakeGate]) -> None:
    fails(run("--netns", "blue", "fence"), 1, "is put up by its daemon")
    assert gate.closed == []


@pytest.mark.parametrize(
    ("text", "ports"), [(b"7331 8571\n", PORTS), (b"", ()), (b"\xff7331 0 65536 12 x", (12,)), (b"-7331", ())]
)
def test_remembered_ports_are_ports(tmp_path: Path, text: bytes, ports: tuple[int, ...]) -> None:
    assert read_ports(tmp_path) == ()
    (tmp_path / "ports").write_bytes(text)
    assert read_ports(tmp_path) == ports
