"""Listed peers: the file."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.store.peers import MAX_PEERS, add_peer, load_peers, parse_key, remove_peer
from tests.helpers.sides import identity

ONE, TWO = identity(1), identity(2)


def text(key: bytes) -> str:
    return base64.b64encode(key).decode()


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


def test_what_an_editor_leaves_is_taken_and_a_name_that_is_there_twice_is_named(tmp_path: Path) -> None:
    file = tmp_path / "peers.toml"
    line = f'org-a = "{base64.b64encode(bytes(32)).decode()}"\n'
    file.write_bytes(b"\xef\xbb\xbf[peers]\r\n" + line.encode())
    assert load_peers(file) == {bytes(32): "org-a"}
    add_peer(file, "org-b", bytes(range(32)))
    assert len(load_peers(file)) == 2
    file.write_text(f"[peers]\n{line}{line}")
    with pytest.raises(OperatorError, match=r"org-a is there twice \(lines 2 and 3\): remove one"):
        load_peers(file)


def test_blanks_around_a_key_are_taken() -> None:
    assert parse_key(f" {base64.b64encode(bytes(32)).decode()}\r\n") == bytes(32)


def test_addresses_that_are_a_peers_alone(tmp_path: Path) -> None:
    file = tmp_path / "peers.toml"
    add_peer(file, "org-a", ONE, ["192.0.2.7"])
    add_peer(file, "org-b", TWO, ["192.0.2.7:7331", "2001:db8::7"])
    peers = load_peers(file)
    assert peers == {ONE: "org-a", TWO: "org-b"}
    assert peers.pinned == {
        b"\xc0\0\2\7": {ONE},
        b"\xc0\0\2\7\x1c\xa3": {TWO},
        bytes.fromhex("20010db8") + bytes(11) + b"\7": {TWO},
    }
    assert not add_peer(file, "org-a", ONE, ["192.0.2.7"])
    for others in ([], ["192.0.2.8"]):
        with pytest.raises(OperatorError, match="with other addresses"):
            add_peer(file, "org-a", ONE, others)
    assert remove_peer(file, "org-b")[2] == 1
    assert load_peers(file).pinned == {b"\xc0\0\2\7": {ONE}}
    with pytest.raises(OperatorError, match="'node-b' is not an address"):
        add_peer(file, "org-c", TWO, ["node-b"])


@pytest.mark.parametrize(
    ("entry", "problem"),
    [
        ('{ key = "KEY", addres = "192.0.2.7" }', "must be { key"),
        ('{ address = "192.0.2.7" }', "must be { key"),
        ('{ key = "KEY", address = 7 }', "must be { key"),
        ('{ key = "KEY", address = [7] }', "an address is a string"),
        ('{ key = "KEY", address = "10.1.0.0/16" }', "is not an address"),
        ('{ key = "AAAA" }', "is not a public key"),
    ],
)
def test_what_is_no_entry_with_an_address(tmp_path: Path, entry: str, problem: str) -> None:
    file = tmp_path / "peers.toml"
    file.write_text(f"[peers]\norg-a = {entry}\n".replace("KEY", text(ONE)))
    file.chmod(0o600)
    with pytest.raises(OperatorError, match=f"org-a: .*{problem}"):
        load_peers(file)
