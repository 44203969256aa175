"""Putting files in place and taking them out again; doing either twice is the same as once."""

from __future__ import annotations

import contextlib
import importlib.resources
import os
import secrets
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import click

from mcencrypt.errors import OperatorError
from mcencrypt.system import completion, manpage
from mcencrypt.system.layout import CONFIG, Layout

#: Folders that are not removed, empty or not.
_KEPT = {"etc", "lib", "man", "sbin", "share", "system", "tmpfiles.d", "usr", "local"}


@dataclass(frozen=True)
class File:
    """One file. `keep`: what an operator wrote there stays."""

    path: Path
    content: str
    keep: bool = False
    folder_mode: int = 0o755


def contents(layout: Layout, units: Mapping[str, str], program: click.Group, version: str) -> Iterator[File]:
    """All files of a layout. `units` are the texts of the systemd units by name, `program` is the command line."""
    data = importlib.resources.files("mcencrypt") / "system"
    for name, text in units.items():
        yield File(layout.units / name, text)
    yield File(layout.lock, (data / "tmpfiles.conf").read_text())
    yield File(CONFIG, (data / "config.toml").read_text(), keep=True, folder_mode=0o700)
    for shell in completion.SHELLS:
        yield File(layout.completion(shell), completion.script(shell, program))
    yield File(layout.man_page, manpage.page(program, version))


def below(root: Path, path: Path) -> Path:
    """`path` inside `root`."""
    return root / path.relative_to("/")


def put(file: File, root: Path) -> str:
    """Write it if it is not so yet: "wrote", "unchanged", or "kept" what was there. Raises OperatorError."""
    path = below(root, file.path)
    try:
        if file.keep and path.exists():
            return "kept"
        with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
            if not path.is_symlink() and path.read_text() == file.content:
                return "unchanged"
        path.parent.parent.mkdir(parents=True, exist_ok=True)
        path.parent.mkdir(mode=file.folder_mode, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        try:
            temporary.write_text(file.content)
            temporary.chmod(0o644)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise _cannot(path, "written", error) from None
    return "wrote"


def put_link(link: Path, target: str, root: Path) -> str:
    """Link to the command, unless something else has that name: then it is "kept". Raises OperatorError."""
    path = below(root, link)
    try:
        if path.is_symlink() and os.readlink(path) == target:
            return "unchanged"
        if path.exists() or path.is_symlink():
            return "kept"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)
    except OSError as error:
        raise _cannot(path, "made", error) from None
    return "wrote"


def remove(path: Path, root: Path) -> bool:
    """Remove a file and the folders that it leaves empty; False if it was not there. Raises OperatorError."""
    path = below(root, path)
    try:
        path.unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _cannot(path, "removed", error) from None
    for folder in path.parents:
        if folder.name in _KEPT or folder == root:
            break
        try:
            folder.rmdir()
        except OSError:
            break
    return True


def _cannot(path: Path, what: str, error: OSError) -> OperatorError:
    return OperatorError(f"{path} cannot be {what}: {error.strerror}: run this as root, or give another --root")
