"""``mcencrypt install`` and ``uninstall``, below a folder of the test's."""

from __future__ import annotations

import os
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from mcencrypt.store import config
from mcencrypt.system import layout, service
from tests.helpers.commands import run


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """In the place of the system."""
    made = tmp_path / "root"
    made.mkdir()
    return made


def files_below(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_install_again_changes_nothing_and_keeps_the_configuration(root: Path) -> None:
    assert run("install", "--root", str(root)).exit_code == 0
    settings = root / "etc/mcencrypt/config.toml"
    settings.write_text("ports = [7331]\n")
    before = files_below(root)
    result = run("install", "--root", str(root))
    assert result.exit_code == 0 and "wrote" not in result.stdout
    assert f"kept      {settings}" in result.stdout
    assert files_below(root) == before
    (root / "etc/systemd/system/mcencrypt.service").write_text("stale")
    assert "wrote     " in run("install", "--root", str(root)).stdout
    assert files_below(root) == before


def test_uninstall_leaves_keys_and_configuration_unless_it_purges(root: Path) -> None:
    run("install", "--root", str(root))
    for kept in ("etc/mcencrypt/network.key", "var/lib/mcencrypt/identity.key"):
        (root / kept).parent.mkdir(parents=True, exist_ok=True)
        (root / kept).write_text("x")
    assert run("uninstall", "--root", str(root)).exit_code == 0
    left = {"etc/mcencrypt/config.toml", "etc/mcencrypt/network.key", "var/lib/mcencrypt/identity.key"}
    assert set(files_below(root)) == left
    assert run("uninstall", "--root", str(root), "--purge").exit_code == 0
    assert files_below(root) == {}
    assert run("uninstall", "--root", str(root), "--purge").exit_code == 0


@pytest.mark.subprocesses
def test_the_service_starts_this_very_program(root: Path) -> None:
    run("install", "--root", str(root))
    text = (root / "etc/systemd/system/mcencrypt.service").read_text()
    (start,) = re.findall(r"^ExecStart=(.*) daemon$", text, re.M)
    done = subprocess.run([*start.split(), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mcencrypt")
    assert "@" not in re.sub(r"@(system-service|privileged|resources)", "", text)


def test_every_suggestion_in_the_configuration_is_valid(root: Path) -> None:
    run("install", "--root", str(root))
    file = root / "etc/mcencrypt/config.toml"
    assert config.load(file, {}).ports == ()
    full = re.sub(r"^# (\w+ = )", r"\1", file.read_text(), flags=re.M)
    assert {"ports", "mode", "network_key_file"} <= set(tomllib.loads(full))
    file.write_text(full)
    assert config.load(file, {}).ports == (7331,)


def test_without_systemd_it_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(service, "runs_here", lambda: False)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    result = run("install")
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("mcencrypt: systemd does not run this system: ") and "--root" in result.stderr


@pytest.mark.parametrize("word", ["install", "uninstall"])
def test_only_root_changes_the_system(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    result = run(word)
    assert result.exit_code == 1 and "run it as root" in result.stderr


@pytest.mark.parametrize("word", ["install", "uninstall"])
def test_the_package_s_own_program_leaves_it_to_the_package(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layout, "is_packaged", lambda: True)
    result = run(word)
    assert result.exit_code == 1 and "package of the system" in result.stderr


def test_a_folder_that_cannot_be_written_is_one_line(root: Path) -> None:
    (root / "etc").write_text("a file")
    result = run("install", "--root", str(root))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1 and "cannot be written: Not a directory" in result.stderr
