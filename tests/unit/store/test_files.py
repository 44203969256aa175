"""Files that are whole whenever anybody looks, and on disk before anybody is told so."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.store.files import create_file, replace_file


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to the disk, in order."""
    done: list[str] = []

    def noted(what: Callable[..., str], name: str) -> None:
        function = getattr(os, name)

        def call(*words: Any, **options: Any) -> Any:
            done.append(what(*words))
            return function(*words, **options)

        monkeypatch.setattr(os, name, call)

    noted(lambda fd: "sync folder" if stat.S_ISDIR(os.fstat(fd).st_mode) else "sync file", "fsync")
    noted(lambda *words: "rename", "replace")
    noted(lambda *words: "link", "link")
    return done


def test_a_file_is_on_disk_before_its_name_is_and_then_the_name(tmp_path: Path, steps: list[str]) -> None:
    file = tmp_path / "state" / "switch"
    for content in (b"on\n", b"off\n"):
        replace_file(file, content)
        assert file.read_bytes() == content
    assert steps == ["sync file", "rename", "sync folder"] * 2
    assert stat.S_IMODE(file.stat().st_mode) == 0o600 and stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    assert os.listdir(file.parent) == ["switch"]


def test_the_first_one_to_create_a_file_wins(tmp_path: Path, steps: list[str]) -> None:
    file = tmp_path / "key"
    assert create_file(file, b"one") and not create_file(file, b"two")
    assert file.read_bytes() == b"one"
    assert steps == ["sync file", "link", "sync folder"]
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    assert not create_file(tmp_path / "link", b"three")
    assert sorted(os.listdir(tmp_path)) == ["key", "link"]


def test_one_who_comes_meanwhile_wins_as_well(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"
    monkeypatch.setattr(os, "fsync", lambda fd: file.write_bytes(b"theirs"))
    assert not create_file(file, b"ours")
    assert file.read_bytes() == b"theirs" and os.listdir(tmp_path) == ["key"]


def test_a_disk_that_is_full_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "switch"
    replace_file(file, b"on\n")

    def full(fd: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OperatorError, match=f"{file}: cannot be written: No space left on device"):
        replace_file(file, b"off\n")
    assert file.read_bytes() == b"on\n" and os.listdir(tmp_path) == ["switch"]
