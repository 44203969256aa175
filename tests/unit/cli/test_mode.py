"""``mcencrypt mode`` and ``mcencrypt reload``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mcencrypt.cli import cli
from mcencrypt.errors import OperatorError
from mcencrypt.store.position import read_mode
from tests.helpers.commands import fails, run
from tests.helpers.served import serving

ONE = {"peer": "10.0.0.2:40000", "local": "10.0.0.1:7331", "allowed": False}


def mode_daemon(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """Asks for confirmation of whatever changes."""
    assert command == "mode"
    result = {"mode": "prefer", "mode_source": "configuration", "configured": "prefer", "plaintext_peers": [ONE]}
    if not arguments["mode"]:
        return result
    if not arguments["confirmed"]:
        return {**result, "would_end": [ONE]}
    return {**result, "mode": arguments["mode"], "mode_source": "command", "plaintext_peers": [], "ended": [ONE]}


def test_mode_shows_it(tmp_path: Path) -> None:
    with serving(tmp_path / "run", mode_daemon):
        result = run("mode")
    assert result.exit_code == 0
    assert result.stdout == "mode is prefer, as configured\n1 connection in plaintext: 10.0.0.2:40000\n"


def test_mode_require_needs_yes_where_nobody_can_be_asked(tmp_path: Path) -> None:
    with serving(tmp_path / "run", mode_daemon):
        fails(run("mode", "require"), 1, "1 plaintext connection would be cut: 10.0.0.2:40000", "--yes")
        result = run("mode", "require", "--yes")
    assert result.stdout.splitlines() == [
        "mode is require, set by `mcencrypt mode`; the configuration says prefer",
        "1 plaintext connection ended",
    ]


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 1)])
def test_mode_require_asks_at_a_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    monkeypatch.setattr("click.testing._NamedTextIOWrapper.isatty", lambda self: True, raising=False)
    with serving(tmp_path / "run", mode_daemon):
        result = CliRunner().invoke(cli, ["mode", "require"], input=answer)
    assert result.exit_code == status
    assert "warning: 1 plaintext connection would be cut: 10.0.0.2:40000" in result.stderr
    assert ("mode is require" in result.stdout) is (status == 0)


def test_mode_without_a_daemon_is_for_the_next_one(tmp_path: Path) -> None:
    assert run("mode").stdout == "mode is require, as configured\n"
    assert "mode is prefer, set by" in run("mode", "prefer").stdout
    assert read_mode(tmp_path / "state") == "prefer"
    assert json.loads(run("mode", "--json").stdout)["mode_source"] == "command"
    assert run("mode", "--from-config").stdout == "mode is require, as configured\n"
    assert read_mode(tmp_path / "state") is None


@pytest.mark.parametrize("words", [["strict"], ["require", "--from-config"]])
def test_a_wrong_mode_is_wrong_usage(words: list[str]) -> None:
    fails(run("mode", *words), 2)


def test_reload_says_what_it_did(tmp_path: Path) -> None:
    result = {
        "changed": ["ports", "mode"], "needs_restart": ["queue_number"], "ports": [7331], "mode": "prefer",
        "mode_source": "command", "configured": "require", "plaintext_peers": [], "plaintext_ended": 1,
        "encrypted_reset": 2, "distrusted_ended": 1, "file": None,
        "warnings": ["the daemon would not start again: not found"],
    }  # fmt: skip
    with serving(tmp_path / "run", lambda command, arguments: result):
        reloaded = run("reload")
        shown = reloaded.stdout
        assert json.loads(run("reload", "--json").stdout) == result
    assert shown.splitlines() == [
        "reloaded: ports, mode",
        "mode stays prefer, set by `mcencrypt mode`: see `mcencrypt mode --from-config`",
        "2 encrypted connections reset on ports that were given up",
        "1 connection of peers that are not listed ended",
        "1 plaintext connection ended",
        "needs a restart of the daemon: queue_number: restart its container, or end it (`mcencrypt status` shows its "
        "pid) and start it with `mcencrypt on`",
    ]
    assert reloaded.stderr == "warning: the daemon would not start again: not found\n"


def test_reload_needs_a_daemon() -> None:
    fails(run("reload"), 1, "no daemon answers")


def test_reload_of_a_wrong_configuration_lets_the_daemon_say_so(tmp_path: Path) -> None:
    config = tmp_path / "config.toml"
    config.write_text(config.read_text() + 'mode = "strict"\n')
    fails(run("reload"), 1, "mode: 'strict' is not one of", "nothing was reloaded")

    def daemon(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        raise OperatorError("the old configuration stays: mode")

    with serving(tmp_path / "run", daemon):
        fails(run("reload"), 1, "the old configuration stays: mode")
