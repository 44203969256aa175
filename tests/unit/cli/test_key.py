"""``mcencrypt key``: what it says, what it refuses, and that no key ever shows."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import Result

from mcencrypt.control.runlock import STATE_LOCK_NAME, RunLock
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.errors import OperatorError
from mcencrypt.store.keys import NetworkKey, create_network_key
from tests.helpers.commands import fails
from tests.helpers.commands import run as mcencrypt
from tests.helpers.served import serving


def run(*words: str, stdin: str | bytes | None = None) -> Result:
    return mcencrypt("key", *words, stdin=stdin)


def key_id(key: NetworkKey) -> str:
    return NetworkSecret(key.secret).key_id.hex()


@pytest.fixture
def old(tmp_path: Path) -> NetworkKey:
    return create_network_key(tmp_path / "network.key")


@pytest.fixture
def new(tmp_path: Path) -> NetworkKey:
    return create_network_key(tmp_path / "new.key")


@pytest.mark.parametrize("name", ["list", "add", "use", "retire"])
def test_each_step_explains_itself_with_an_example(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0 and f"  mcencrypt key {name} " in result.stdout
    for option in ("--config", "--run-dir"):
        assert option in result.stdout


@pytest.mark.parametrize("words", [[], ["frobnicate"], ["use"], ["retire"], ["use", "a", "b"], ["list", "x"]])
def test_wrong_usage_is_status_2(words: list[str]) -> None:
    assert run(*words).exit_code == 2


def test_without_a_daemon_the_files_are_shown_and_changed(tmp_path: Path, old: NetworkKey, new: NetworkKey) -> None:
    assert key_id(old) in run("list").stdout
    result = run("add", str(tmp_path / "new.key"))
    assert result.exit_code == 0 and f"key {key_id(new)} is accepted\n" in result.stdout
    assert "accepted already" in run("add", "-", stdin=new.text()).stdout
    shown = json.loads(run("list", "--json").stdout)
    assert [(one["id"], one["offered"], one["base"]) for one in shown["keys"]] == [
        (key_id(old), True, True), (key_id(new), False, False)
    ]  # fmt: skip
    for step in ("use", "retire"):
        fails(run(step, key_id(new)), 1, "no daemon answers", "--force")
    assert "no peer was asked" in run("use", key_id(new)[:8], "--force").stdout
    result = run("retire", key_id(old), "--force")
    assert result.exit_code == 0 and f"{tmp_path}/network.key still holds a retired key" in result.stderr
    assert key_id(new) in result.stderr
    result = run("list")
    assert key_id(old) not in result.stdout and "still holds a retired key" in result.stderr


@pytest.mark.parametrize(
    ("count", "said"), [(1, "1 connection that began under it stays"), (2, "2 connections that began")]
)
def test_connections_under_a_retired_key_are_counted(tmp_path: Path, count: int, said: str) -> None:
    answer = {"id": "9b1d" * 4, "offered": "5f0c" * 4, "asked": 1, "base": False, "connections": count}
    with serving(tmp_path / "run", lambda command, arguments: answer):
        assert said in run("retire", "9b1d").stdout


def test_no_key_shows(tmp_path: Path, old: NetworkKey, new: NetworkKey) -> None:
    said = ""
    for words in (["add", str(tmp_path / "new.key")], ["list"], ["list", "--json"], ["use", key_id(new), "--force"],
                  ["retire", key_id(old), "--force"], ["list"]):  # fmt: skip
        said += run(*words).output
    for key in (old, new):
        assert key.secret.hex() not in said and base64.b64encode(key.secret).decode() not in said


@pytest.mark.parametrize(
    ("words", "stdin", "parts"),
    [
        (["add", "missing.key"], None, ["missing.key"]),
        (["add", "-"], "c2VjcmV0\n", ["standard input", "not a key"]),
        (["add"], b"\xff\xfe", ["standard input", "UTF-16"]),
        (["add"], "", ["standard input", "not a key"]),
        (["use", "zz", "--force"], None, ["there is no key 'zz'"]),
        (["retire", "zz", "--force"], None, ["there is no key 'zz'"]),
    ],
)
def test_errors_name_what_is_wrong(old: NetworkKey, words: list[str], stdin: Any, parts: list[str]) -> None:
    result = run(*words, stdin=stdin)
    fails(result, 1, *parts)
    assert "c2VjcmV0" not in result.output


def test_the_offered_key_cannot_be_retired_even_by_force(old: NetworkKey) -> None:
    fails(run("retire", key_id(old), "--force"), 1, "another first")


def test_a_key_that_others_can_read_is_not_taken(tmp_path: Path, old: NetworkKey, new: NetworkKey) -> None:
    (tmp_path / "new.key").chmod(0o644)
    fails(run("add", str(tmp_path / "new.key")), 1, "chmod 600")


def test_a_ring_that_is_broken_is_one_line(tmp_path: Path, old: NetworkKey) -> None:
    (tmp_path / "state" / "keyring").mkdir(parents=True, mode=0o700)
    (tmp_path / "state" / "keyring" / "offered").write_text("0123456789abcdef\n")
    fails(run("list"), 1, "keyring/offered", "which is not here")


def test_files_are_left_alone_while_a_daemon_starts(tmp_path: Path, old: NetworkKey, new: NetworkKey) -> None:
    with RunLock.acquire(tmp_path / "state", STATE_LOCK_NAME, "state_dir"):
        fails(run("add", str(tmp_path / "new.key")), 1, str(tmp_path / "state"))
    assert not (tmp_path / "state" / "keyring").exists()


def test_the_daemon_is_asked_and_its_answer_is_told(tmp_path: Path, old: NetworkKey, new: NetworkKey) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    answers: dict[str, Any] = {
        "key-add": {"id": key_id(new), "new": True},
        "key-use": {"id": key_id(new), "before": key_id(old), "asked": 3, "unreachable": ["AAAA= at 10.0.0.9"]},
        "key-retire": {"id": key_id(old), "asked": 1, "base": True, "offered": key_id(new), "connections": 2},
        "status": {
            "keys": [
                {"id": key_id(new), "accepted": True, "offered": True, "base": False, "connections": 1, "peers": 3,
                 "last_used": 65.0},
                {"id": key_id(old), "accepted": False, "offered": False, "base": True, "connections": 2, "peers": 0,
                 "last_used": None},
            ],
            "base_key_retired": True,
        },
    }  # fmt: skip

    def handler(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        asked.append((command, arguments))
        if arguments.get("id") == "refuse":
            raise OperatorError("1 of 2 peers would be cut off")
        result: dict[str, Any] = answers[command]
        return result

    with serving(tmp_path / "run", handler):
        assert "is accepted\n" in run("add", "-", stdin=new.text()).stdout
        result = run("use", "abc")
        assert "3 peers asked" in result.stdout and "cannot be dialled from here" in result.stdout
        assert "AAAA= at 10.0.0.9" in result.stdout
        result = run("retire", "def", "--force")
        assert "no peer was asked" in result.stdout and "2 connections that began under it" in result.stdout
        lines = run("list").stdout.splitlines()
        fails(run("use", "refuse"), 1, "1 of 2 peers would be cut off")
    assert asked[0] == ("key-add", {"key": new.text()})
    assert asked[1] == ("key-use", {"id": "abc", "force": False})
    assert asked[2] == ("key-retire", {"id": "def", "force": True})
    assert lines[1].split() == [key_id(new), "yes", "1", "3", "1m05s", "ago"]
    assert lines[2].endswith("in network_key_file, retired")
    assert not (tmp_path / "state" / "keyring").exists(), "the daemon's business"
