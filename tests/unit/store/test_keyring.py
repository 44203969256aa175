"""The ring of network keys on disk: what survives a restart, and every way in which its files can be wrong."""

from __future__ import annotations

import re
import stat
from pathlib import Path

import pytest

from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.keyring import MAX_KEYS
from mcencrypt.errors import OperatorError
from mcencrypt.store.keyring import StoredKeyring
from mcencrypt.store.keys import NetworkKey, save_network_key

KEYS = [NetworkKey(bytes((number,)) * 32) for number in range(1, 100)]
OLD, NEW, THIRD = KEYS[:3]


def key_id(key: NetworkKey) -> bytes:
    return NetworkSecret(key.secret).key_id


def ids(stored: StoredKeyring) -> list[bytes]:
    return [secret.key_id for secret in stored.ring]


def rotated(state_dir: Path) -> StoredKeyring:
    stored = StoredKeyring(state_dir, OLD)
    stored.offer(stored.add(NEW))
    stored.retire(stored.base)
    return stored


def test_without_files_the_base_key_is_all_and_nothing_is_made(tmp_path: Path) -> None:
    stored = StoredKeyring(tmp_path, OLD)
    assert ids(stored) == [key_id(OLD)] and stored.ring.offered is stored.base and not stored.base_retired
    assert list(tmp_path.iterdir()) == []


def test_every_step_of_a_rotation_survives_a_restart(tmp_path: Path) -> None:
    def again() -> StoredKeyring:
        return StoredKeyring(tmp_path, OLD)

    new = again().add(NEW)
    assert ids(again()) == [key_id(OLD), key_id(NEW)] and again().ring.offered.key_id == key_id(OLD)
    again().offer(new)
    assert again().ring.offered.key_id == key_id(NEW)
    stored = again()
    stored.retire(stored.base)
    assert ids(stored) == ids(again()) == [key_id(NEW)]
    assert again().base_retired and again().ring.offered.key_id == key_id(NEW)
    # The operator replaces network_key_file, as the warning says; then the next key comes, and this one goes.
    stored = StoredKeyring(tmp_path, NEW)
    assert ids(stored) == [key_id(NEW)] and not stored.base_retired
    stored.offer(stored.add(THIRD))
    stored.retire(stored.base)
    assert ids(StoredKeyring(tmp_path, NEW)) == [key_id(THIRD)]
    assert sorted(file.name for file in (tmp_path / "keyring").iterdir()) == [
        f"{key_id(THIRD).hex()}.key", "offered", "retired"
    ]  # fmt: skip


def test_an_added_key_that_is_retired_stays_away(tmp_path: Path) -> None:
    stored = StoredKeyring(tmp_path, OLD)
    stored.retire(stored.add(NEW))
    assert ids(StoredKeyring(tmp_path, OLD)) == [key_id(OLD)]
    assert not list(tmp_path.rglob("*.key"))


def test_a_retired_key_can_be_added_again(tmp_path: Path) -> None:
    rotated(tmp_path).add(OLD)
    stored = StoredKeyring(tmp_path, OLD)
    assert set(ids(stored)) == {key_id(OLD), key_id(NEW)} and not stored.base_retired
    assert stored.ring.offered.key_id == key_id(NEW)


def test_a_stop_between_the_two_steps_of_retire_leaves_the_key_retired(tmp_path: Path) -> None:
    stored = StoredKeyring(tmp_path, OLD)
    stored.retire(stored.add(NEW))
    save_network_key(tmp_path / "keyring" / f"{key_id(NEW).hex()}.key", NEW)
    assert ids(StoredKeyring(tmp_path, OLD)) == [key_id(OLD)]


def test_files_are_nobody_elses_business_and_no_key_shows_in_a_name(tmp_path: Path) -> None:
    rotated(tmp_path).add(THIRD)
    folder = tmp_path / "keyring"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    for file in folder.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert repr(rotated(tmp_path / "other").ring).find("AQEB") < 0


def test_the_offered_key_is_not_retired(tmp_path: Path) -> None:
    stored = StoredKeyring(tmp_path, OLD)
    stored.add(NEW)
    with pytest.raises(OperatorError, match="another first"):
        stored.retire(stored.base)
    assert len(ids(StoredKeyring(tmp_path, OLD))) == 2


def test_there_are_only_so_many_keys(tmp_path: Path) -> None:
    stored = StoredKeyring(tmp_path, OLD)
    for key in KEYS[1:MAX_KEYS]:
        stored.add(key)
    with pytest.raises(OperatorError, match="retire one first"):
        stored.add(KEYS[MAX_KEYS])
    assert len(ids(StoredKeyring(tmp_path, OLD))) == MAX_KEYS
    save_network_key(tmp_path / "keyring" / f"{key_id(KEYS[50]).hex()}.key", KEYS[50])
    with pytest.raises(OperatorError, match="more than 8 keys"):
        StoredKeyring(tmp_path, OLD)


def test_what_is_remembered_of_retired_keys_is_bounded_but_never_forgets_the_base(tmp_path: Path) -> None:
    stored = rotated(tmp_path)
    for key in KEYS[2:90]:
        stored.retire(stored.add(key))
    assert len((tmp_path / "keyring" / "retired").read_text().split()) == 64
    assert StoredKeyring(tmp_path, OLD).base_retired


def write(state_dir: Path, name: str, text: str) -> None:
    file = state_dir / "keyring" / name
    file.write_text(text)
    file.chmod(0o600)


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("offered", "0123456789abcdef\n", "names key 0123456789abcdef, which is not here"),
        ("offered", "", "must hold one key id"),
        ("offered", "zz\n", "16 digits"),
        ("retired", "7\n", "16 digits"),
        ("0123456789abcdef.key", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n", "not the one of its name"),
        ("0123456789abcdef.key", "nonsense\n", "not a key"),
        ("new.key", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=\n", "mcencrypt key add"),
    ],
)
def test_a_file_that_is_not_as_it_was_written_is_named(tmp_path: Path, name: str, text: str, words: str) -> None:
    StoredKeyring(tmp_path, OLD).add(NEW)
    write(tmp_path, name, text)
    with pytest.raises(OperatorError, match=re.escape(words)) as caught:
        StoredKeyring(tmp_path, OLD)
    assert str(tmp_path / "keyring" / name) in str(caught.value) and "AQEB" not in str(caught.value)


def test_a_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    StoredKeyring(tmp_path, OLD).add(NEW)
    (tmp_path / "keyring" / f"{key_id(NEW).hex()}.key").chmod(0o644)
    with pytest.raises(OperatorError, match="chmod 600"):
        StoredKeyring(tmp_path, OLD)


@pytest.mark.parametrize("name", ["offered", "retired", f"{key_id(NEW).hex()}.key"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    rotated(tmp_path).add(THIRD)
    file = tmp_path / "keyring" / name
    file.unlink()
    file.mkdir()
    with pytest.raises(OperatorError, match=str(file)):
        StoredKeyring(tmp_path, OLD)


def test_a_base_key_that_was_retired_is_not_enough(tmp_path: Path) -> None:
    rotated(tmp_path)
    (tmp_path / "keyring" / f"{key_id(NEW).hex()}.key").unlink()
    with pytest.raises(OperatorError, match=r"network_key_file holds key .* retired"):
        StoredKeyring(tmp_path, OLD)
