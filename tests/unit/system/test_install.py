"""What `install` writes, below a folder of the test's: unit, man page, completion, configuration."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import click
import pytest
from click.testing import CliRunner, Result

from mcencrypt.cli import cli
from mcencrypt.store import config
from mcencrypt.system import completion, layout, manpage, service, unit


def run(*words: str) -> Result:
    return CliRunner().invoke(cli, list(words))


def files_below(root: Path) -> dict[str, str]:
    return {str(path.relative_to(root)): path.read_text() for path in root.rglob("*") if path.is_file()}


def test_install_again_changes_nothing_and_keeps_the_configuration(tmp_path: Path) -> None:
    assert run("install", "--root", str(tmp_path)).exit_code == 0
    settings = tmp_path / "etc/mcencrypt/config.toml"
    settings.write_text("ports = [7331]\n")
    before = files_below(tmp_path)
    result = run("install", "--root", str(tmp_path))
    assert result.exit_code == 0 and "wrote" not in result.stdout
    assert f"kept      {settings}" in result.stdout
    assert files_below(tmp_path) == before
    (tmp_path / "etc/systemd/system/mcencrypt.service").write_text("stale")
    assert "wrote     " in run("install", "--root", str(tmp_path)).stdout
    assert files_below(tmp_path) == before


def test_uninstall_leaves_keys_and_configuration_unless_it_purges(tmp_path: Path) -> None:
    run("install", "--root", str(tmp_path))
    for kept in ("etc/mcencrypt/network.key", "var/lib/mcencrypt/identity.key"):
        (tmp_path / kept).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / kept).write_text("x")
    assert run("uninstall", "--root", str(tmp_path)).exit_code == 0
    left = {"etc/mcencrypt/config.toml", "etc/mcencrypt/network.key", "var/lib/mcencrypt/identity.key"}
    assert set(files_below(tmp_path)) == left
    assert run("uninstall", "--root", str(tmp_path), "--purge").exit_code == 0
    assert files_below(tmp_path) == {}
    assert run("uninstall", "--root", str(tmp_path), "--purge").exit_code == 0


@pytest.mark.subprocesses
def test_the_service_starts_this_very_program(tmp_path: Path) -> None:
    run("install", "--root", str(tmp_path))
    text = (tmp_path / "etc/systemd/system/mcencrypt.service").read_text()
    (start,) = re.findall(r"^ExecStart=(.*) daemon$", text, re.M)
    done = subprocess.run([*start.split(), "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("mcencrypt")
    assert "@" not in re.sub(r"@(system-service|privileged|resources)", "", text)


@pytest.mark.subprocesses
@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="needs systemd-analyze")
@pytest.mark.parametrize(("name", "most"), [("mcencrypt.service", 2.5), ("mcencrypt@.service", 5.0)])
def test_the_unit_is_right_and_hardened(tmp_path: Path, name: str, most: float) -> None:
    file = tmp_path / name.replace("@", "@blue")
    file.write_text(unit.render(["/bin/true"], [Path("/home/a b/venv"), Path("/usr")], name))
    verify = subprocess.run(["systemd-analyze", "verify", "--man=no", str(file)], capture_output=True, text=True)
    assert [line for line in verify.stderr.splitlines() if "mcencrypt" in line] == []
    analyze = ["systemd-analyze", "security", "--no-pager", "--offline=true", str(file)]
    done = subprocess.run(analyze, capture_output=True, text=True)
    if "unrecognized option" in done.stderr:
        pytest.skip("systemd-analyze cannot judge a file")
    (exposure,) = re.findall(r"Overall exposure level for mcencrypt.*service: ([0-9.]+)", done.stdout)
    assert float(exposure) <= most, done.stdout


def test_words_are_quoted_for_systemd() -> None:
    text = unit.render(['/opt/my node/100%/$HOME/mc"x\\y'], [])
    assert 'ExecStart="/opt/my node/100%%/$$HOME/mc\\"x\\\\y" daemon' in text


def test_the_program_stays_visible_where_the_unit_hides_folders() -> None:
    needed = ["/usr/lib/x", "/home/op/venv/lib", "/home/op/venv", "/root/.pyenv/3.11", "/tmp"]
    text = unit.render(["/home/op/venv/bin/mcencrypt"], map(Path, needed))
    assert re.findall("^BindReadOnlyPaths=(/.*)$", text, re.M) == ["/home/op/venv", "/root/.pyenv/3.11"]


def test_every_suggestion_in_the_configuration_is_valid(tmp_path: Path) -> None:
    run("install", "--root", str(tmp_path))
    file = tmp_path / "etc/mcencrypt/config.toml"
    assert config.load(file, {}).ports == ()
    full = re.sub(r"^# (\w+ = )", r"\1", file.read_text(), flags=re.M)
    assert {"ports", "mode", "network_key_file"} <= set(tomllib.loads(full))
    file.write_text(full)
    assert config.load(file, {}).ports == (7331,)


def test_the_manual_has_every_command_and_option() -> None:
    text = manpage.page(cli, "1.2.3").replace("\\-", "-")
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None and f".SS mcencrypt {name} " in text
    for words in (".SH FILES", "--purge", "mcencrypt off --now", "network.key", '"mcencrypt 1.2.3"'):
        assert words in text


@pytest.mark.subprocesses
@pytest.mark.skipif(not shutil.which("man"), reason="needs man")
def test_the_manual_is_accepted_by_man(tmp_path: Path) -> None:
    page = tmp_path / "mcencrypt.1"
    page.write_text(manpage.page(cli, "1.2.3"))
    command = ["man", "--warnings", "--local-file", str(page)]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "MANPAGER": "cat", "LC_ALL": "C"})
    assert done.returncode == 0 and done.stderr == ""
    assert "EXIT STATUS" in done.stdout


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_completion_asks_the_program(shell: str) -> None:
    text = completion.script(shell, cli)
    assert f"_MCENCRYPT_COMPLETE={shell}_complete" in text and "%(" not in text
    word = "unins" if shell == "fish" else "1"  # its text, or its number
    asked = {"_MCENCRYPT_COMPLETE": f"{shell}_complete", "COMP_WORDS": "mcencrypt unins", "COMP_CWORD": word}
    done = CliRunner().invoke(cli, [], env=asked)
    assert done.exit_code == 0 and "uninstall" in done.stdout


@pytest.mark.subprocesses
@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
def test_the_script_for_bash_is_one() -> None:
    subprocess.run(["bash", "-n"], input=completion.script("bash", cli), text=True, check=True)


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
    assert result.exit_code == 1 and "Debian package" in result.stderr


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "etc").write_text("a file")
    result = run("install", "--root", str(tmp_path))
    assert result.exit_code == 1
    assert result.stderr.count("\n") == 1 and "cannot be written: Not a directory" in result.stderr
