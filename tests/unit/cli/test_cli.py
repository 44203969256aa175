"""The command line as a whole: help, usage, shared options, exit codes and one-line errors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.commands import SOURCE, fails, run

COMMANDS = ("on", "off", "status", "top", "mode", "reload", "peers", "daemon", "keygen", "identity", "rules", "decode",
            "doctor", "verify", "install", "uninstall", "key")  # fmt: skip


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str) -> None:
    result = run(name, "--help")
    assert result.exit_code == 0 and "Example" in result.stdout and f"mcencrypt {name}" in result.stdout
    for option in ("--config", "--run-dir", "MCENCRYPT_CONFIG", "MCENCRYPT_RUN_DIR"):
        assert option in result.stdout


def test_the_help_lists_every_command() -> None:
    result = run("--help")
    assert result.exit_code == 0
    for name in COMMANDS:
        assert f"\n  {name} " in result.stdout
    assert run("--version").exit_code == 0 and run("--version").stdout.startswith("mcencrypt")


@pytest.mark.parametrize(
    "words",
    [["frobnicate"], ["--frobnicate", "on"], ["status", "--frobnicate"], ["on", "extra"], ["decode"], ["--config"],
     ["keygen", "a", "b"], ["decode", "--port", "70000", "x"], ["decode", "--port", "x", "x"]],
)  # fmt: skip
def test_wrong_usage_is_one_line_and_status_2(words: list[str]) -> None:
    fails(run(*words), 2, "--help`")


def test_no_command_shows_the_help_and_is_wrong_usage() -> None:
    result = run()
    assert result.exit_code == 2 and "Usage: mcencrypt" in result.stderr


@pytest.mark.parametrize("words", [["on"], ["off"], ["status"], ["daemon"], ["keygen"], ["identity"], ["rules"]])
def test_a_named_config_that_is_missing_is_an_error_before_anything_else(tmp_path: Path, words: list[str]) -> None:
    missing = str(tmp_path / "none.toml")
    fails(run("--config", missing, *words), 1, missing)
    fails(run(*words, "--config", missing), 1, missing)
    assert {path.name for path in tmp_path.iterdir()} == {"config.toml"}


def test_a_wrong_setting_is_an_error_that_names_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCENCRYPT_PORTS", "99999")
    fails(run("rules"), 1, "MCENCRYPT_PORTS", "99999")


def test_the_run_dir_is_taken_before_and_after_and_the_last_one_wins(tmp_path: Path) -> None:
    one, two = str(tmp_path / "one"), str(tmp_path / "two")
    fails(run("--run-dir", one, "status"), 1, f"no daemon answers at {one}/control.sock", "mcencrypt on")
    fails(run("status", "--run-dir", two), 1, f"{two}/control.sock")
    fails(run("--run-dir", one, "status", "--run-dir", two), 1, f"{two}/control.sock")
    fails(run("status"), 1, f"{tmp_path}/run/control.sock")


def test_the_run_dir_from_the_environment_is_taken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MCENCRYPT_RUN_DIR", str(tmp_path / "other"))
    fails(run("status", "--json"), 1, f"{tmp_path}/other/control.sock")


@pytest.mark.subprocesses
def test_the_command_line_starts_without_scapy_and_netfilter() -> None:
    program = (
        "import sys\nfrom mcencrypt.cli import main\nsys.argv = ['mcencrypt', 'status']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    code = end.code\n"
        "heavy = [name for name in ('scapy', 'netfilterqueue', 'pyroute2') if name in sys.modules]\nprint(code, heavy)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
    )
    assert done.stdout == "1 []\n" and "no daemon answers" in done.stderr


@pytest.mark.subprocesses
def test_output_that_nobody_reads_ends_quietly() -> None:
    read, write = os.pipe()
    os.close(read)
    done = subprocess.run(
        [sys.executable, "-m", "mcencrypt", "rules"],
        stdout=write,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(SOURCE)},
        check=False,
    )
    os.close(write)
    assert done.returncode == 1 and done.stderr == b""


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("statsu",), "No such command 'statsu', did you mean status? (see `mcencrypt --help`)"),
        (("peers", "ad"), "No such command 'ad', did you mean add? (see `mcencrypt peers --help`)"),
        (("key", "retrie"), "did you mean retire?"),
        (("frobnicate",), "No such command 'frobnicate'. (see `mcencrypt --help`)"),
    ],
)
def test_a_word_that_is_no_command(words: tuple[str, ...], said: str) -> None:
    fails(run(*words), 2, said)
