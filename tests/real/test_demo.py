"""`make demo` as whoever tries mcencrypt first sees it: it holds, it is plain in a log, it cleans up."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lab import PATIENCE, missing
from lab.demo.dump import side_by_side
from lab.demo.multichain import find
from lab.demo.screen import Screen
from lab.namespace import MOUNTS, PREFIX, LabError
from lab.nursery import importable

needs_lab = pytest.mark.skipif(missing() is not None, reason=str(missing()))


class Demo:
    """A demo from its start to its end."""

    def __init__(self, **environment: str) -> None:
        inherited = {name: value for name, value in os.environ.items() if name != "MULTICHAIND"}
        with subprocess.Popen(
            [sys.executable, "-m", "lab.demo"],
            env=inherited | importable() | environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as process:
            self.pid = process.pid
            self.stdout, self.stderr = process.communicate(timeout=3 * PATIENCE)
        self.returncode = process.returncode


@needs_lab
def test_the_demo_holds_and_leaves_nothing_behind() -> None:
    # settings of the machine are not the demo's
    done = Demo(MCENCRYPT_PORTS="1", MCENCRYPT_CONFIG="/does/not/exist")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("All of it held")
    assert "FAILED" not in done.stdout
    assert "[ok] 0 plaintext markers in " in done.stdout
    assert "verdict: encrypted: every data byte is handshake or record" in done.stdout
    assert "INVOICE-" in done.stdout and "\033" not in done.stdout
    for place in (MOUNTS, Path(tempfile.gettempdir())):
        assert not list(place.glob(f"{PREFIX}-{done.pid}-*"))


@needs_lab
def test_a_folder_without_multichain_is_named() -> None:
    done = Demo(MULTICHAIND="/nowhere")
    assert done.returncode == 1
    assert done.stderr.startswith("mcencrypt: MULTICHAIND=/nowhere: no multichaind there")


def test_the_folder_of_a_named_program_will_do(tmp_path: Path) -> None:
    (tmp_path / "multichaind").touch()
    with pytest.raises(LabError, match="no multichain-util there"):
        find(str(tmp_path))
    (tmp_path / "multichain-util").touch()
    assert find(str(tmp_path / "multichaind")) == tmp_path == find(str(tmp_path))


def test_one_failed_check_is_remembered(capsys: pytest.CaptureFixture[str]) -> None:
    screen = Screen(sys.stdout)
    screen.check(True, "this holds")
    screen.check([], "this does not")
    assert screen.failed == ["this does not"]
    assert capsys.readouterr().out == "   [ok] this holds\n   [FAILED] this does not\n"


def test_dumps_stay_in_their_columns() -> None:
    lines = side_by_side(("left", b"INVOICE-4711"), ("right", bytes(range(16))), 3)
    assert lines[1].startswith("49 4e 56 4f 49 43 45 2d  INVOICE-   |   00 01 02 03 04 05 06 07  ........")
    assert lines[2].startswith("34 37 31 31              4711       |   08 09 0a")
    assert len({len(line) for line in lines}) == 1
