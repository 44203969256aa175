"""Files that are whole whenever anybody looks, and on disk before anybody is told so."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.store import files
from mcencrypt.store.files import create_file, remove_file, replace_file
from mcencrypt.store.position import read_switch, write_mode, write_switch


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


# -- file systems that can do less than most


def error(number: int) -> OSError:
    return OSError(number, os.strerror(number))


@pytest.fixture(params=[errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS])
def without_links(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system that has no hard links."""

    def link(*_: object) -> None:
        raise error(request.param)

    monkeypatch.setattr(os, "link", link)


def names(directory: Path) -> list[str]:
    return sorted(one.name for one in directory.iterdir())


@pytest.mark.usefixtures("without_links")
def test_a_file_is_made_once_without_hard_links(tmp_path: Path) -> None:
    file = tmp_path / "key"
    assert create_file(file, b"first") and not create_file(file, b"second")
    assert file.read_bytes() == b"first" and file.stat().st_mode & 0o777 == 0o600
    assert names(tmp_path) == ["key"]


@pytest.mark.usefixtures("without_links")
@pytest.mark.parametrize("kind", ["file", "dangling symlink"])
def test_the_first_of_two_wins_without_hard_links(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "key"

    def overtaken(path: Path, content: bytes) -> Path:
        """While the second one wrote, the first one was done."""
        temporary = write(path, content)
        file.symlink_to("nowhere") if kind == "dangling symlink" else file.write_bytes(b"first")
        return temporary

    write = files._write_temporary
    monkeypatch.setattr(files, "_write_temporary", overtaken)
    assert not create_file(file, b"second")
    assert names(tmp_path) == ["key"]
    assert file.is_symlink() or file.read_bytes() == b"first"


@pytest.mark.usefixtures("without_links")
def test_a_move_that_fails_leaves_no_name_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def replace(*_: object) -> None:
        raise error(errno.EIO)

    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(OSError, match="Input/output"):
        create_file(tmp_path / "key", b"first")
    with pytest.raises(OperatorError, match="cannot be written"):
        replace_file(tmp_path / "key", b"first")
    assert names(tmp_path) == []


def test_another_failure_of_link_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def link(*_: object) -> None:
        raise error(errno.EIO)

    monkeypatch.setattr(os, "link", link)
    with pytest.raises(OSError, match="Input/output"):
        create_file(tmp_path / "key", b"first")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("number", "works"), [(errno.EINVAL, True), (errno.ENOSYS, True), (errno.EOPNOTSUPP, True), (errno.EIO, False)]
)
def test_folders_that_cannot_be_synced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, works: bool
) -> None:
    sync = os.fsync

    def fsync(descriptor: int) -> None:
        if os.path.isdir(f"/proc/self/fd/{descriptor}"):
            raise error(number)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    if works:
        assert create_file(tmp_path / "key", b"content")
        replace_file(tmp_path / "other", b"content")
        remove_file(tmp_path / "other")
        assert names(tmp_path) == ["key"]
        return
    with pytest.raises(OSError, match="Input/output"):
        create_file(tmp_path / "key", b"content")
    with pytest.raises(OperatorError, match="Input/output"):
        replace_file(tmp_path / "other", b"content")


# -- what has not changed


def test_what_a_file_holds_already_is_not_written_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace_file(tmp_path / "switch", b"on\n")

    def full(*_: object) -> Path:
        raise error(errno.ENOSPC)

    monkeypatch.setattr(files, "_write_temporary", full)
    replace_file(tmp_path / "switch", b"on\n")
    with pytest.raises(OperatorError, match=r"switch: cannot be written: No space left on device: make room there"):
        replace_file(tmp_path / "switch", b"off\n")
    write_switch(tmp_path, True)
    with pytest.raises(OperatorError, match="No space"):
        write_switch(tmp_path, False)
    (tmp_path / "switch").unlink()
    write_switch(tmp_path, True)
    assert read_switch(tmp_path) and names(tmp_path) == []


@pytest.mark.parametrize("kind", ["longer", "for others to read", "link", "fifo"])
def test_what_only_looks_the_same_is_replaced(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "offered"
    replace_file(file, b"id\n")
    if kind == "longer":
        file.write_bytes(b"id\nmore")
    elif kind == "for others to read":
        file.chmod(0o644)
    elif kind == "link":
        file.rename(tmp_path / "target")
        file.symlink_to("target")
    else:
        file.unlink()
        os.mkfifo(file)
    replace_file(file, b"id\n")
    assert not file.is_symlink() and file.read_bytes() == b"id\n" and file.stat().st_mode & 0o777 == 0o600


def test_a_mode_that_is_forgotten_is_gone_from_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    sync = files._sync_directory

    def noted(directory: Path) -> None:
        synced.append(directory)
        sync(directory)

    write_mode(tmp_path, "prefer")
    monkeypatch.setattr(files, "_sync_directory", noted)
    write_mode(tmp_path, None)
    assert synced == [tmp_path] and names(tmp_path) == [], "else a power cut would bring `prefer` back"
    write_mode(tmp_path, None)


def test_what_of_a_path_is_missing_is_named(tmp_path: Path) -> None:
    """And not that one should be root, who one may well be."""

    def said(file: Path) -> str:
        with pytest.raises(OSError) as problem:
            file.read_bytes()
        return str(files.cannot(file, "be read", problem.value))

    (tmp_path / "file").write_text("")
    assert said(tmp_path / "none").endswith(f"none: cannot be read: there is no such file in {tmp_path}")
    assert said(tmp_path / "no" / "where").endswith(
        f"where: cannot be read: {tmp_path}/no is not there: look at the path"
    )
    assert said(tmp_path / "file" / "x").endswith(f"{tmp_path}/file is no folder: look at the path")
    assert said(tmp_path).endswith("it is a folder: name a file")
