"""``mcencrypt rules``."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.commands import fails, run


def test_rules_are_printed_for_both_families_without_installing_anything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    result = run("rules")
    assert result.exit_code == 0
    assert "# ipv4" in result.stdout and "# ipv6" in result.stdout
    assert result.stdout.count("7331,8571") >= 8 and "NFQUEUE" in result.stdout


def test_rules_without_ports_say_what_to_set(tmp_path: Path) -> None:
    (tmp_path / "config.toml").write_text("")
    fails(run("rules"), 1, "ports")
