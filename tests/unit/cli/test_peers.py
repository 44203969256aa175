"""``mcencrypt peers``: what it shows, and the list that it edits, with a daemon and without."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.core.answers import Answered
from mcencrypt.store.answers import read_answers, write_answers
from mcencrypt.store.config import load
from mcencrypt.store.peers import load_peers
from tests.helpers.commands import fails, run
from tests.helpers.served import serving

ONE, TWO = bytes(range(32)), bytes(range(32, 64))


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


ANSWERED = {
    "address": "192.0.2.7:7331", "key": text(ONE), "name": "org-a", "since": "2026-03-01T10:00:00Z",
    "last": "2026-03-09T10:00:00Z", "other_key": text(TWO), "other_name": None, "other_at": "2026-03-09T10:00:00Z",
    "pinned": False,
}  # fmt: skip


def test_peers_for_people_and_for_programs(tmp_path: Path) -> None:
    one = {"peer": "10.0.0.1:40000", "local": "10.0.0.2:7331", "state": "encrypted", "carrier": "syn",
           "since": 940.0, "bytes_out": 7000, "bytes_in": 8}  # fmt: skip
    result = {"trust": "listed", "file": "/x/peers.toml", "peers": [
        {"name": "org-b", "key": text(TWO), "connections": [one, one]},
        {"name": "org-a", "key": text(ONE), "connections": []},
    ], "answered": [ANSWERED]}  # fmt: skip
    with serving(tmp_path / "run", lambda command, arguments: result if command == "peers" else {}):
        shown = run("peers").stdout.splitlines()
        assert run("peers", "list").stdout.splitlines() == shown
        assert json.loads(run("peers", "--json").stdout) == json.loads(run("peers", "list", "--json").stdout) == result
    assert shown[0] == "trusted are the peers in /x/peers.toml"
    assert [line.split()[:3] for line in shown[3:5]] == [["org-b", text(TWO), "10.0.0.1:40000"]] * 2
    assert shown[3].split()[-4:] == ["7.0", "kB", "8", "B"]
    assert shown[5].split() == ["org-a", text(ONE), "not", "connected"]
    assert shown[8].split() == ["192.0.2.7:7331", "org-a", "2026-03-01", "2026-03-09", "CHANGED:", text(TWO)]


def test_adding_with_an_address_pins_it(tmp_path: Path) -> None:
    assert run("peers", "add", "org-a", text(ONE), "--address", "192.0.2.7", "--address", "[::7]:1").exit_code == 0
    assert len(load_peers(tmp_path / "state" / "peers.toml").pinned) == 2
    fails(run("peers", "add", "org-b", text(TWO), "--address", "node-b"), 1, "'node-b' is not an address")


def test_forgetting_asks_the_daemon(tmp_path: Path) -> None:
    seen = []

    def daemon(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        seen.append((command, arguments["address"]))
        return {"forgotten": ["192.0.2.7:7331", "192.0.2.7:7332"]}

    with serving(tmp_path / "run", daemon):
        shown = run("peers", "forget", "192.0.2.7")
    assert shown.stdout.splitlines() == ["192.0.2.7:7331 is forgotten", "192.0.2.7:7332 is forgotten"]
    assert seen == [("peers-forget", "192.0.2.7")]


def test_without_a_daemon_the_file_is_edited(tmp_path: Path) -> None:
    state = tmp_path / "state"
    endpoint = b"\xc0\0\2\7\x1c\xa3"
    write_answers(state, {endpoint: Answered(ONE, 1, 2), endpoint[:-1] + b"\0": Answered(TWO, 1, 2)})
    assert run("peers", "forget", "192.0.2.7:7331").stdout == "192.0.2.7:7331 is forgotten\n"
    assert list(read_answers(state)) == [endpoint[:-1] + b"\0"]
    fails(run("peers", "forget", "192.0.2.7:7331"), 1, "nothing is remembered of 192.0.2.7:7331")
    fails(run("peers", "forget", "node-b"), 1, "is not an address")


def test_adding_and_removing_tells_the_daemon(tmp_path: Path) -> None:
    seen = []

    def daemon(command: str, arguments: dict[str, Any]) -> dict[str, Any]:
        seen.append((command, len(load_peers(tmp_path / "state" / "peers.toml"))))
        return {"ended": 2 if len(seen) > 1 else 0}

    with serving(tmp_path / "run", daemon):
        assert "org-a is listed in" in run("peers", "add", "org-a", text(ONE)).stdout
        assert run("peers", "remove", text(ONE)).stdout.splitlines() == [
            f"org-a ({text(ONE)}) is not listed any more",
            "2 connections ended",
        ]
    assert seen == [("peers-changed", 1), ("peers-changed", 0)]


def test_without_a_daemon_the_list_is_edited_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCENCRYPT_TRUST", "listed")
    monkeypatch.setenv("MCENCRYPT_PEERS_FILE", str(tmp_path / "mine.toml"))
    assert run("peers", "add", "org-a", text(ONE)).exit_code == 0
    assert load_peers(tmp_path / "mine.toml") == {ONE: "org-a"}
    removed = run("peers", "remove", "org-a")
    assert removed.exit_code == 0 and "nobody is listed now" in removed.stderr


def test_errors_of_peers() -> None:
    fails(run("peers", "add", "org-a", "AAAA"), 1, "'AAAA' is not a public key", "mcencrypt identity")
    fails(run("peers", "add", "org a", text(ONE)), 1, "is not a name")
    fails(run("peers", "remove", "org-a"), 1, "no peer 'org-a'")
    fails(run("peers", "add", "org-a"), 2, "KEY")
    fails(run("peers", "lose"), 2, "lose")
    fails(run("peers", "forget"), 2, "ADDRESS")


@pytest.mark.parametrize("name", ["list", "add", "remove", "forget"])
def test_every_command_of_peers_explains_itself_with_an_example(name: str) -> None:
    result = run("peers", name, "--help")
    assert result.exit_code == 0 and "Example" in result.stdout and f"mcencrypt peers {name}" in result.stdout


def test_the_list_without_a_daemon_is_the_file(tmp_path: Path) -> None:
    assert run("peers", "list").stdout.splitlines()[-1] == "no peers"
    assert run("peers", "add", "org-a", text(ONE)).exit_code == 0
    shown = run("peers", "list")
    assert shown.exit_code == 0 and shown.stdout.splitlines()[-1].split() == ["org-a", text(ONE), "not", "connected"]
    assert "no daemon answers" in shown.stderr and "peers.toml says" in shown.stderr
    listed = json.loads(run("peers", "--json").stdout)["peers"]
    assert listed == [{"name": "org-a", "key": text(ONE), "connections": []}]


def test_a_secret_is_never_listed(tmp_path: Path) -> None:
    """`peers add org-b "$(cat network.key)"`, which shows it to everybody."""
    assert run("keygen").exit_code == 0 and run("keygen", str(tmp_path / "new.key")).exit_code == 0
    own = run("identity").stdout.strip()
    assert run("key", "add", str(tmp_path / "new.key")).exit_code == 0
    for file in ("network.key", "new.key", "state/identity.key"):
        secret = (tmp_path / file).read_text()
        refused = run("peers", "add", "org-b", secret)
        fails(refused, 1, "a SECRET", "nothing was written")
        assert secret.strip() not in refused.output
    fails(run("peers", "add", "me", own), 1, "this node's own public key")
    assert not (tmp_path / "state/peers.toml").exists()


def test_the_same_entry_again_is_no_error(tmp_path: Path) -> None:
    assert run("peers", "add", "org-a", text(ONE)).exit_code == 0
    again = run("peers", "add", "org-a", text(ONE))
    assert again.exit_code == 0 and "already, with that key" in again.stdout
    fails(run("peers", "add", "org-b", text(ONE)), 1, "there already, as org-a")
    fails(run("peers", "add", "org-a", text(TWO)), 1, "org-a is there already, with another key")


def test_a_list_is_signed_and_is_the_admins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("peers", "add", "org-a", text(ONE)).exit_code == 0
    made = run("peers", "sign-key", str(tmp_path / "admin.key"))
    public = made.stdout.split('"')[1]
    assert made.exit_code == 0 and made.stdout == f'peers_signed_by = "{public}"\n'
    signed = run("peers", "sign", "--key", str(tmp_path / "admin.key"), "--days", "180")
    assert signed.exit_code == 0 and "signed: 1 peer until 20" in signed.stderr and public in signed.stderr
    (tmp_path / "org.peers").write_text(signed.stdout)
    monkeypatch.setenv("MCENCRYPT_TRUST", "listed")
    monkeypatch.setenv("MCENCRYPT_PEERS_SIGNED_BY", public)
    monkeypatch.setenv("MCENCRYPT_PEERS_FILE", str(tmp_path / "org.peers"))
    assert load(None, dict(os.environ)).peers() == {ONE: "org-a"}
    for words in (("add", "org-b", text(TWO)), ("remove", "org-a")):
        fails(run("peers", *words), 1, "the list is the admin's", "org.peers")
    words = ("--key", str(tmp_path / "none"), "--days", "1", "--list", str(tmp_path / "state/peers.toml"))
    fails(run("peers", "sign", *words), 1, "none")
