"""``mcencrypt doctor``: what it says, and its exit status."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mcencrypt.cli import cli
from mcencrypt.cli import doctor as command
from mcencrypt.doctor.finding import Finding, Severity, note
from mcencrypt.nodes.processes import Process
from tests.helpers.recorded_machine import Recorded, case, status


def test_what_a_terminal_gets_is_wrapped_and_printable() -> None:
    from mcencrypt.doctor.checks import Topic

    finding = Finding("x", Severity.PROBLEM, "evil \x1b[31m name " + "word " * 60, "do this")
    lines = command.describe([Topic("things", (finding, note("y", "quiet")))], Severity.WARNING)
    assert lines[0] == "things" and lines[1].startswith("  PROBLEM  evil ?[31m name word")
    assert max(map(len, lines)) <= 120 and "           -> do this" in lines
    assert lines[-1] == "1 problem, 0 warnings" and not any("quiet" in line for line in lines)


def run(machine: Recorded, monkeypatch: pytest.MonkeyPatch, running: dict[str, Any] | None, *words: str) -> Any:
    monkeypatch.setattr("mcencrypt.cli.doctor.open_case", lambda settings: case(machine, running))
    monkeypatch.setattr(Process, "__hash__", None)
    return CliRunner().invoke(cli, ["doctor", *words])


def test_the_command_fails_if_there_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = Recorded()
    machine.saved = [one._replace(text="") for one in machine.saved]
    result = run(machine, monkeypatch, status(), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["problems"] == len([one for one in report["findings"] if one["severity"] == "problem"]) >= 2
    assert {one["id"] for one in report["findings"]} >= {"rules.ipv4", "rules.ipv6", "queue.reader"}
    assert all(set(one) == {"topic", "id", "severity", "text", "advice"} for one in report["findings"])
    result = run(machine, monkeypatch, status(), "--quiet")
    assert result.exit_code == 1 and "PROBLEM  ipv4: rules of mcencrypt are missing" in result.stdout
    assert "  ok  " not in result.stdout


@pytest.mark.subprocesses
def test_the_command_without_configuration_or_daemon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real machine: whatever it is like, the configuration is the finding."""
    monkeypatch.setattr("mcencrypt.doctor.kernel.try_kernel", lambda case: "")
    config = tmp_path / "config.toml"
    config.write_text("prots = [7331]\n")
    result = CliRunner().invoke(cli, ["doctor", "--json", "--config", str(config), "--run-dir", str(tmp_path / "run")])
    assert result.exit_code == 1, result.output
    found = {one["id"]: one for one in json.loads(result.stdout)["findings"]}
    assert found["config.invalid"]["severity"] == "problem" and "prots" in found["config.invalid"]["text"]
    assert str(tmp_path / "run") in found["daemon.none"]["text"]


def test_usage() -> None:
    result = CliRunner().invoke(cli, ["doctor", "--nonsense"])
    assert result.exit_code == 2 and "mcencrypt doctor --help" in result.stderr
    assert "Example:\n    mcencrypt doctor" in CliRunner().invoke(cli, ["doctor", "--help"]).stdout
