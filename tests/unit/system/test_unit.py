"""The systemd units."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from mcencrypt.system import unit


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
