"""The manual page."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import click
import pytest

from mcencrypt.cli import cli
from mcencrypt.system import manpage


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
