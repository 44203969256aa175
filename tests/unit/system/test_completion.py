"""The shells' completion."""

from __future__ import annotations

import shutil
import subprocess

import pytest
from click.testing import CliRunner

from mcencrypt.cli import cli
from mcencrypt.system import completion


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
