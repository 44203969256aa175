"""Listed peers: the file, and the commands."""

from __future__ import annotations

import base64
import logging
import os
from pathlib import Path

import pytest

from mcencrypt.core.status import Connection, Counters, State
from mcencrypt.errors import OperatorError
from mcencrypt.store.config import Config
from mcencrypt.store.peers import MAX_PEERS, add_peer, load_peers, remove_peer
from tests.helpers.settings import Bench
from tests.helpers.sides import A, B, identity

ONE, TWO = identity(1), identity(2)


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


# -- the file


def test_peers_are_added_and_removed_and_comments_stay(tmp_path: Path) -> None:
    file = tmp_path / "state" / "peers.toml"
    add_peer(file, "org-a", ONE)
    file.write_text(file.read_text() + "# the rest of them\n")
    add_peer(file, "org.b/node:1@site", TWO)
    assert load_peers(file) == {ONE: "org-a", TWO: "org.b/node:1@site"}
    assert file.stat().st_mode & 0o777 == 0o600
    assert remove_peer(file, "org-a") == ("org-a", ONE, 1)
    assert "# the rest of them" in file.read_text()
    assert remove_peer(file, text(TWO)) == ("org.b/node:1@site", TWO, 0)
    assert load_peers(file) == {}
    assert [one.name for one in file.parent.iterdir()] == ["peers.toml"]


@pytest.mark.parametrize(
    ("name", "key", "problem"),
    [
        ("org-a", identity(3), "org-a is there already, with another key"),
        ("org-c", ONE, "that key is there already, as org-a"),
        ("two words", identity(3), "'two words' is not a name"),
        ("-x", identity(3), "'-x' is not a name"),
        (text(TWO), identity(3), "is not a name"),
    ],
)
def test_what_cannot_be_added(tmp_path: Path, name: str, key: bytes, problem: str) -> None:
    file = tmp_path / "peers.toml"
    add_peer(file, "org-a", ONE)
    before = file.read_text()
    with pytest.raises(OperatorError, match=problem):
        add_peer(file, name, key)
    assert file.read_text() == before


def test_the_list_is_bounded(tmp_path: Path) -> None:
    file = tmp_path / "peers.toml"
    lines = [f'p{number} = "{text(number.to_bytes(32, "big"))}"\n' for number in range(MAX_PEERS + 1)]
    file.write_text("[peers]\n" + "".join(lines[:-1]))
    file.chmod(0o600)
    assert len(load_peers(file)) == MAX_PEERS
    with pytest.raises(OperatorError, match="no more are possible"):
        add_peer(file, "more", ONE)
    file.write_text("[peers]\n" + "".join(lines))
    with pytest.raises(OperatorError, match="4097 peers are more than 4096"):
        load_peers(file)
    file.write_text("#" * (1 << 20) + "\n")
    with pytest.raises(OperatorError, match="larger than"):
        load_peers(file)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("[peers]\norg-a = ", "not valid TOML"),
        ('[peer]\norg-a = "x"', r"peer: must be a table \[peers\]"),
        ('peers = "x"', r"peers: must be a table \[peers\]"),
        ("[peers]\norg-a = 7", "org-a: a key is a string"),
        ('[peers]\norg-a = "AAAA"', "org-a: 'AAAA' is not a public key"),
        (f'[peers]\norg-a = "{text(ONE)} "', "org-a: .* is not a public key"),
        (f'[peers]\norg-a = "{text(ONE)}"\norg-b = "{text(ONE)}"', "org-b: has the key of org-a"),
        (f'[peers]\norg-a = "{text(ONE)}"\norg-a = "{text(TWO)}"', "not valid TOML"),
        (f'[peers]\n"two words" = "{text(ONE)}"', "'two words' is not a name"),
        (b"\xff", "not UTF-8"),
    ],
)
def test_what_is_no_list_of_peers(tmp_path: Path, content: str | bytes, problem: str) -> None:
    file = tmp_path / "peers.toml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    file.chmod(0o644)
    with pytest.raises(OperatorError, match=problem) as raised:
        load_peers(file)
    assert str(file) in str(raised.value)


def test_a_list_that_others_can_change_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "peers.toml"
    add_peer(file, "org-a", ONE)
    file.chmod(0o620)
    with pytest.raises(OperatorError, match="chmod go-w"):
        load_peers(file)
    os.mkfifo(tmp_path / "fifo", 0o600)
    with pytest.raises(OperatorError, match="not a regular file"):
        load_peers(tmp_path / "fifo")


# -- the configuration


def test_trust_listed_needs_a_list_with_somebody_on_it(tmp_path: Path) -> None:
    listed = Config(trust="listed", state_dir=tmp_path)
    with pytest.raises(OperatorError, match=r"peers\.toml: not found, and trust = \"listed\""):
        listed.peers()
    add_peer(tmp_path / "peers.toml", "org-a", ONE)
    assert listed.peers() == {ONE: "org-a"}
    remove_peer(tmp_path / "peers.toml", "org-a")
    with pytest.raises(OperatorError, match="lists nobody"):
        listed.peers()
    assert Config(state_dir=tmp_path).peers() == {}
    assert Config(state_dir=tmp_path / "other").peers() == {}
    with pytest.raises(OperatorError, match="not found"):
        Config(state_dir=tmp_path, peers_file=tmp_path / "none.toml").peers()


# -- the daemon's commands


def test_switching_to_listed_ends_connections_of_others(tmp_path: Path) -> None:
    bench = Bench(tmp_path)
    bench.switch.distrusted = 2
    with pytest.raises(OperatorError, match=r"the old configuration stays: .*not found"):
        bench.reload(trust="listed")
    assert bench.policy.listed is None
    add_peer(tmp_path / "peers.toml", "org-a", ONE)
    done = bench.reload(trust="listed")
    assert (done["changed"], done["distrusted_ended"]) == (["trust", "peers"], 2)
    assert bench.policy.listed == {ONE} and bench.live.name_of(ONE) == "org-a"
    remove_peer(tmp_path / "peers.toml", "org-a")
    with pytest.raises(OperatorError, match="lists nobody"):
        bench.reload(trust="listed")
    assert bench.policy.listed == {ONE}


def test_a_changed_list_is_taken_even_if_it_is_empty(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = tmp_path / "peers.toml"
    add_peer(file, "org-a", ONE)
    bench = Bench(tmp_path, trust="listed")
    add_peer(file, "org-b", TWO)
    assert bench.live.command_peers_changed({})["peers"] == 2
    assert bench.policy.listed == {ONE, TWO}
    file.write_text("[peers]\n")
    bench.switch.distrusted = 4
    assert bench.live.command_peers_changed({}) == {"trust": "listed", "peers": 0, "ended": 4}
    assert bench.policy.listed == frozenset() and "nobody is trusted" in caplog.text
    file.write_text("[peers")
    with caplog.at_level(logging.ERROR), pytest.raises(OperatorError, match=r"the old list stays: .*not valid TOML"):
        bench.live.command_peers_changed({})
    assert "old list stays" in caplog.text


def test_peers_are_those_proven_and_those_listed(tmp_path: Path) -> None:
    add_peer(tmp_path / "peers.toml", "org-b", TWO)
    add_peer(tmp_path / "peers.toml", "org-a", ONE)
    bench = Bench(tmp_path)
    local, remote = B[0] + B[1].to_bytes(2, "big"), A[0] + A[1].to_bytes(2, "big")
    shown = [
        Connection(local, remote, State.ENCRYPTED, identity(3), 60.0, counters=Counters(7, 8)),
        Connection(local, remote, State.UNCONFIRMED, b"", 60.0),
        Connection(local, remote, State.ENCRYPTED, TWO, 5.0, counters=Counters(1, 2)),
    ]
    result = bench.live.command_peers(shown, 1000.0)
    assert [(one["name"], one["key"], len(one["connections"])) for one in result["peers"]] == [
        (None, text(identity(3)), 1), ("org-b", text(TWO), 1), ("org-a", text(ONE), 0),
    ]  # fmt: skip
    assert result["peers"][0]["connections"] == [
        {"peer": "10.0.0.1:40000", "local": "10.0.0.2:7331", "state": "encrypted", "since": 940.0, "bytes_out": 7,
         "bytes_in": 8}
    ]  # fmt: skip
    assert (result["trust"], result["file"]) == ("network-key", str(tmp_path / "peers.toml"))
