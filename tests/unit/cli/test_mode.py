"""`mcencrypt mode` and `mcencrypt reload`: words of the command line, and what the daemon makes of them."""

from __future__ import annotations

import json
import logging
from ipaddress import ip_network
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from mcencrypt.cli import cli
from mcencrypt.errors import OperatorError
from mcencrypt.store.config import Config
from mcencrypt.store.position import read_mode, write_mode
from tests.helpers.commands import fails, run
from tests.helpers.served import serving
from tests.helpers.settings import Bench

# -- the daemon's side


def test_require_names_what_it_would_end_and_does_nothing_until_confirmed(tmp_path: Path) -> None:
    bench = Bench(tmp_path, allow_plaintext=(ip_network("192.0.2.0/24"),))
    asked = bench.live.command_mode({"mode": "require"})
    assert [one["peer"] for one in asked["would_end"]] == ["10.0.0.2:40000"]
    assert (asked["mode"], bench.policy.mode, read_mode(tmp_path)) == ("prefer", "prefer", None)

    done = bench.live.command_mode({"mode": "require", "confirmed": True})
    assert [one["peer"] for one in done["ended"]] == ["10.0.0.2:40000"]
    assert [one["peer"] for one in done["plaintext_peers"]] == ["192.0.2.1:40000"]
    assert (done["mode"], done["mode_source"], done["configured"]) == ("require", "command", "prefer")
    assert bench.policy.mode == "require"


def test_the_mode_is_remembered_until_the_configuration_decides_again(tmp_path: Path) -> None:
    Bench(tmp_path).live.command_mode({"mode": "require", "confirmed": True})
    again = Bench(tmp_path)
    assert (again.policy.mode, again.live.mode_source) == ("require", "command")
    shown = again.live.command_mode({"from_config": True})
    assert (shown["mode"], shown["mode_source"]) == ("prefer", "configuration")
    assert Bench(tmp_path).policy.mode == "prefer"


def test_switched_off_nothing_ends_and_nothing_is_asked(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.switch.off()
    done = bench.live.command_mode({"mode": "require"})
    assert (done["mode"], done["ended"]) == ("require", [])
    assert len(bench.switch.plaintext()) == 2


def test_an_unknown_mode_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match="no mode 'strict'"):
        Bench(tmp_path).live.command_mode({"mode": "strict"})


def test_a_damaged_note_counts_as_the_stricter_mode(tmp_path: Path) -> None:
    (tmp_path / "mode").write_bytes(b"\xff\xfe")
    assert read_mode(tmp_path) == "require"
    write_mode(tmp_path, "prefer")
    assert read_mode(tmp_path) == "prefer"
    write_mode(tmp_path, None)
    assert read_mode(tmp_path) is None


def test_a_reload_applies_what_it_can_and_names_the_rest(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    network = ip_network("10.0.0.0/8")
    before = logging.getLogger().level
    try:
        done = bench.reload(
            mode="require", allow_plaintext=(network,), log_level="error", queue_number=5, run_dir=Path("/elsewhere")
        )
        assert logging.getLogger().level == logging.ERROR
    finally:
        logging.getLogger().setLevel(before)
    assert done["changed"] == ["mode", "allow_plaintext", "log_level"]
    assert done["needs_restart"] == ["run_dir", "queue_number"]
    assert (done["plaintext_ended"], done["encrypted_reset"]) == (1, 0), "192.0.2.1 is in no allowed network"
    assert bench.policy.mode == "require" and bench.policy.allow_plaintext == (network,)
    assert bench.live.reload()["needs_restart"] == ["run_dir", "queue_number"], "still"


def test_a_reload_takes_other_ports(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    done = bench.reload(ports=(7331, 8571))
    assert (done["changed"], done["ports"], done["encrypted_reset"]) == (["ports"], [7331, 8571], 3)


def test_a_reload_leaves_a_mode_that_was_set_by_command(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.live.command_mode({"mode": "prefer"})
    done = bench.reload(mode="require")
    assert (done["mode"], done["configured"], done["plaintext_ended"]) == ("prefer", "require", 0)


def test_a_wrong_configuration_keeps_the_old_one_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench(tmp_path)

    def wrong() -> Config:
        raise OperatorError("config.toml: mode: 'strict' is not one of require, prefer")

    bench.next = wrong
    with pytest.raises(OperatorError, match=r"the old configuration stays: config\.toml: mode"):
        bench.live.reload()
    assert "the old one stays" in caplog.text
    assert bench.policy.mode == "prefer"


def test_ports_that_cannot_be_taken_leave_everything_as_it_was(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.switch.problem = "iptables-restore failed"
    with pytest.raises(OperatorError, match="the old configuration stays: iptables-restore failed"):
        bench.reload(ports=(1,), mode="require")
    assert (bench.policy.mode, bench.switch.ports, len(bench.switch.plaintext())) == ("prefer", (7331,), 2)
    bench.switch.problem = None
    assert bench.reload(ports=(1,), mode="require")["changed"] == ["ports", "mode"]


# -- the command line

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
    }  # fmt: skip
    with serving(tmp_path / "run", lambda command, arguments: result):
        shown = run("reload").stdout
        assert json.loads(run("reload", "--json").stdout) == result
    assert shown.splitlines() == [
        "reloaded: ports, mode",
        "mode stays prefer, set by `mcencrypt mode`: see `mcencrypt mode --from-config`",
        "2 encrypted connections reset on ports that were given up",
        "1 connection of peers that are not listed ended",
        "1 plaintext connection ended",
        "needs a restart of the daemon: queue_number",
    ]


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
