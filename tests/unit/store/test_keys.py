"""Key files: their form, who may read them, and that none is ever overwritten."""

from __future__ import annotations

import base64
import multiprocessing
import os
import stat
from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.store import files, keys
from mcencrypt.store.keys import NetworkKey, create_network_key, load_identity, load_network_key


def key_file(directory: Path, content: bytes, mode: int = 0o600) -> Path:
    file = directory / "network.key"
    file.write_bytes(content)
    file.chmod(mode)
    return file


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_key_is_44_characters_of_base64_that_only_its_owner_can_read(tmp_path: Path) -> None:
    file = tmp_path / "new" / "network.key"
    key = create_network_key(file)
    assert file.read_bytes() == base64.b64encode(key.secret) + b"\n"
    assert len(key.secret) == 32
    assert (mode(file), mode(file.parent)) == (0o600, 0o700)
    assert load_network_key(file) == key
    assert os.listdir(file.parent) == ["network.key"]


def test_two_keys_differ(tmp_path: Path) -> None:
    assert create_network_key(tmp_path / "a") != create_network_key(tmp_path / "b")


@pytest.mark.parametrize("kind", ["file", "dangling symlink"])
def test_what_exists_is_never_overwritten(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "network.key"
    if kind == "file":
        file.write_text("precious")
    else:
        file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OperatorError, match=r"network\.key: exists already"):
        create_network_key(file)
    assert not (tmp_path / "elsewhere").exists()
    assert len(os.listdir(tmp_path)) == 1
    if kind == "file":
        assert file.read_text() == "precious"


def test_a_file_that_appears_meanwhile_is_not_overwritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "network.key"
    write = files._write_temporary

    def slow(path: Path, content: bytes) -> Path:
        temporary = write(path, content)
        path.write_text("first")
        return temporary

    monkeypatch.setattr(files, "_write_temporary", slow)
    with pytest.raises(OperatorError, match="exists already"):
        create_network_key(file)
    assert file.read_text() == "first"
    assert os.listdir(tmp_path) == ["network.key"]


def test_repr_does_not_show_the_key() -> None:
    secret = bytes(range(32))
    shown = repr(NetworkKey(secret)) + str(NetworkKey(secret))
    assert repr(secret) not in shown
    assert shown == "NetworkKey()" * 2


GOOD = base64.b64encode(bytes(range(32)))


@pytest.mark.parametrize("content", [GOOD, GOOD + b"\n", GOOD + b"\r\n"])
def test_line_ends_do_not_matter(tmp_path: Path, content: bytes) -> None:
    assert load_network_key(key_file(tmp_path, content)).secret == bytes(range(32))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\n",
        GOOD[:-1],
        GOOD[:-2] + b"9=",  # the unused bits of the last character are not zero
        GOOD[:20] + b" " + GOOD[20:],
        base64.b64encode(bytes(31)),
        base64.b64encode(bytes(33)),
        base64.urlsafe_b64encode(b"\xff" * 32),
        bytes(range(32)),
        bytes(range(32)).hex().encode(),
        b"A" * 5000,
        "ключ".encode(),
    ],
)
def test_anything_else_is_refused(tmp_path: Path, content: bytes) -> None:
    with pytest.raises(OperatorError, match=r"network\.key: not a key: .*44 characters") as caught:
        load_network_key(key_file(tmp_path, content))
    assert GOOD.decode()[:8] not in str(caught.value)


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610, 0o666])
def test_a_key_that_others_can_reach_is_refused(tmp_path: Path, mode: int) -> None:
    with pytest.raises(OperatorError, match=rf"network\.key: other users .*mode {mode:04o}.*chmod 600"):
        load_network_key(key_file(tmp_path, GOOD, mode))


@pytest.mark.parametrize("mode", [0o600, 0o400])
def test_a_key_for_its_owner_alone_is_taken(tmp_path: Path, mode: int) -> None:
    load_network_key(key_file(tmp_path, GOOD, mode))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root: gives a file away")
def test_a_key_of_another_user_is_refused(tmp_path: Path) -> None:
    file = key_file(tmp_path, GOOD)
    os.chown(file, 12345, 12345)
    with pytest.raises(OperatorError, match="belongs to user 12345"):
        load_network_key(file)


def test_docker_secrets_and_systemd_credentials_keep_their_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = key_file(tmp_path, GOOD, 0o444)
    (tmp_path / "way").symlink_to(tmp_path)
    with pytest.raises(OperatorError):
        load_network_key(file)
    assert keys._load(file, {"CREDENTIALS_DIRECTORY": str(tmp_path / "way")}) == bytes(range(32))
    with pytest.raises(OperatorError):
        keys._load(file, {"CREDENTIALS_DIRECTORY": ""})
    monkeypatch.setattr(keys, "_SECRET_DIRECTORY", tmp_path)
    load_network_key(file)
    monkeypatch.setattr(keys, "_SECRET_DIRECTORY", tmp_path / "net")
    with pytest.raises(OperatorError):
        load_network_key(file)


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(OperatorError, match=r"none\.key: not found: make one with `mcencrypt keygen"):
        load_network_key(tmp_path / "none.key")


def test_directories_and_fifos_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for file in (tmp_path, tmp_path / "fifo"):
        with pytest.raises(OperatorError, match=r"not a regular file|is a folder"):
            load_network_key(file)


def test_identity_is_made_once_and_kept(tmp_path: Path) -> None:
    state = tmp_path / "state"
    first = load_identity(state)
    assert load_identity(state).public == first.public
    assert base64.b64decode(first.public_base64) == first.public
    assert (mode(state), mode(state / "identity.key")) == (0o700, 0o600)
    assert load_identity(tmp_path / "other").public != first.public
    private = base64.b64encode(first.private.private_bytes_raw())
    assert (state / "identity.key").read_bytes() == private + b"\n"
    assert repr(first) == "Identity()"


def test_a_broken_identity_is_an_error_not_a_new_identity(tmp_path: Path) -> None:
    (tmp_path / "identity.key").write_bytes(b"broken\n")
    (tmp_path / "identity.key").chmod(0o600)
    with pytest.raises(OperatorError, match=r"identity\.key: not a key"):
        load_identity(tmp_path)
    assert (tmp_path / "identity.key").read_bytes() == b"broken\n"


def _public(state: str) -> str:
    return load_identity(Path(state)).public_base64


@pytest.mark.subprocesses
def test_processes_that_race_get_the_same_identity(tmp_path: Path) -> None:
    with multiprocessing.get_context("fork").Pool(4) as pool:
        for attempt in range(20):
            found = pool.map(_public, [str(tmp_path / str(attempt))] * 4, chunksize=1)
            assert len(set(found)) == 1
            assert os.listdir(tmp_path / str(attempt)) == ["identity.key"]


KEY = base64.b64encode(bytes(range(32)))


@pytest.mark.parametrize(
    "content",
    [KEY, KEY + b"\r\n", b"\xef\xbb\xbf" + KEY + b"\n", b"  " + KEY + b" \t\n", b"\n\n" + KEY + b"\n\n", KEY + b"\r"],
    ids=["no line end", "CRLF", "BOM", "blanks", "empty lines", "CR"],
)
def test_what_an_editor_leaves_around_a_key_is_taken(tmp_path: Path, content: bytes) -> None:
    assert load_network_key(key_file(tmp_path, content)) == NetworkKey(bytes(range(32)))


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (KEY + b"\n" + KEY + b"\n", "holds 2 lines, and a key is one"),
        (b"# the key\n" + KEY, "holds 2 lines, and a key is one"),
        (KEY.decode().encode("utf-16"), "is in UTF-16: save it as UTF-8"),
        (b"\xff" + KEY, "not UTF-8"),
        (KEY[:20] + b" " + KEY[20:], "not a key: it must hold 32 bytes in base64"),
    ],
)
def test_what_cannot_be_taken_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    with pytest.raises(OperatorError, match=problem):
        load_network_key(key_file(tmp_path, content))


def test_a_folder_in_the_place_of_the_key_is_named(tmp_path: Path) -> None:
    (tmp_path / "network.key").mkdir()
    with pytest.raises(OperatorError, match=r"network\.key: is a folder, as Docker makes .*: remove it"):
        load_network_key(tmp_path / "network.key")


def test_a_key_of_another_user_is_named_with_its_owner(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As root of a container has it, which may not read others' files."""
    file = key_file(tmp_path, KEY, 0o600)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(keys.os, "open", refuse)
    monkeypatch.setattr(keys.os, "geteuid", lambda: 0)
    owner = file.stat().st_uid
    with pytest.raises(OperatorError, match=rf"belongs to user {owner}, mode 0600: user 0 may not read it: chown 0"):
        load_network_key(file)
