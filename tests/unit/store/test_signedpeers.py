"""Signed lists of peers: whose, which one counts, and that none is fallen back to."""

from __future__ import annotations

import base64
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.store.config import Config
from mcencrypt.store.endpoints import parse_endpoint
from mcencrypt.store.peers import ListedPeers
from mcencrypt.store.signedpeers import create_signing_key, current, sign, verify

ONE, TWO = bytes(range(32)), bytes(range(32, 64))
LATER = 2_000_000_000


def listed(*keys: bytes) -> ListedPeers:
    peers = ListedPeers()
    peers.update({key: f"org-{key[0]}" for key in keys})
    return peers


class Admin:
    """Who signs."""

    def __init__(self, folder: Path, name: str = "admin.key") -> None:
        self.file = folder / name
        self.public = base64.b64decode(create_signing_key(self.file))

    def signs(self, serial: int, *keys: bytes, expires: int = LATER) -> bytes:
        text, public = sign(listed(*keys), serial, expires, self.file)
        assert base64.b64decode(public) == self.public
        return text


@pytest.fixture
def admin(tmp_path: Path) -> Admin:
    return Admin(tmp_path)


def test_a_list_comes_back_as_it_was_signed(admin: Admin) -> None:
    found = verify(admin.signs(7, ONE, TWO), "x", admin.public)
    assert (found.serial, found.expires, found.peers) == (7, LATER, {ONE: "org-0", TWO: "org-32"})
    assert stat.S_IMODE(admin.file.stat().st_mode) == 0o600
    with pytest.raises(OperatorError, match="exists already"):
        create_signing_key(admin.file)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda text: text.replace(b"serial = 7", b"serial = 8"), "signature is not that of peers_signed_by"),
        (lambda text: text.replace(b"org-0", b"org-9"), "signature is not that of peers_signed_by"),
        (lambda text: text.replace(b"[peers]", b"\n[peers]"), "signature is not that of peers_signed_by"),
        (lambda text: text[:-20] + b"A" * 19 + b"\n", "signature is not that of peers_signed_by"),
        (lambda text: text + b'evil = "x"\n', "is not signed"),
        (lambda text: text.rpartition(b"#")[0], "is not signed"),
        (lambda text: b"", "is not signed"),
        (lambda text: text + b" " * (1 << 20), "is not signed"),
    ],
)
def test_what_was_changed_is_refused(admin: Admin, change: Callable[[bytes], bytes], problem: str) -> None:
    with pytest.raises(OperatorError, match=problem):
        verify(change(admin.signs(7, ONE)), "x", admin.public)


def test_another_signer_is_refused(tmp_path: Path, admin: Admin) -> None:
    with pytest.raises(OperatorError, match="not that of peers_signed_by"):
        verify(Admin(tmp_path, "other.key").signs(7, ONE), "x", admin.public)


def test_the_latest_counts_and_an_older_one_is_never_taken_again(tmp_path: Path, admin: Admin) -> None:
    file, state = tmp_path / "list", tmp_path / "state"
    file.write_bytes(admin.signs(7, ONE, TWO))
    assert current(file, admin.public, state).serial == 7
    file.write_bytes(admin.signs(8, TWO))
    assert current(file, admin.public, state).peers == {TWO: "org-32"}
    for content in (admin.signs(7, ONE, TWO), b"garbage", None):
        file.unlink() if content is None else file.write_bytes(content)
        assert current(file, admin.public, state).serial == 8, "kept"
    with pytest.raises(OperatorError, match="not that of peers_signed_by"):
        current(file, Admin(tmp_path, "new.key").public, state)


def test_a_folder_of_lists(tmp_path: Path, admin: Admin) -> None:
    drop, state = tmp_path / "drop", tmp_path / "state"
    drop.mkdir()
    with pytest.raises(OperatorError, match="there is no signed list: put the admin's there"):
        current(drop, admin.public, state)
    (drop / "a.peers").write_bytes(admin.signs(9, ONE))
    (drop / "b.peers").write_bytes(admin.signs(8, TWO))
    (drop / "c.peers").write_bytes(b"somebody else's")
    (drop / "d.txt").write_bytes(admin.signs(10, TWO))
    assert current(drop, admin.public, state).serial == 9


def test_what_a_configuration_needs(tmp_path: Path, admin: Admin) -> None:
    made = Config(peers_file=tmp_path / "list", state_dir=tmp_path / "s", trust="listed", peers_signed_by=admin.public)
    with pytest.raises(OperatorError, match="there is no signed list"):
        made.peers()
    (tmp_path / "list").write_bytes(admin.signs(7, ONE))
    assert made.peers() == {ONE: "org-0"}
    (tmp_path / "list").write_bytes(admin.signs(8, ONE, expires=1_700_000_000))
    with pytest.raises(OperatorError, match="has expired: get a new one from the admin"):
        made.peers()
    with pytest.raises(OperatorError, match='needs trust = "listed"'):
        Config(peers_signed_by=admin.public).peers()


def test_addresses_that_are_a_peers_alone_are_signed_as_well(admin: Admin) -> None:
    peers = listed(ONE, TWO)
    for address in ("192.0.2.7:7331", "2001:db8::7"):
        peers.pinned[parse_endpoint(address)] = frozenset({ONE})
    text, _ = sign(peers, 7, LATER, admin.file)
    found = verify(text, "x", admin.public).peers
    assert found == peers and found.pinned == peers.pinned
