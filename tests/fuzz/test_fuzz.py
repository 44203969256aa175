"""Each target on its corpus, and then for a while on inputs that nobody has tried; `make fuzz` goes on for longer."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fuzz.targets import CORPUS, NAMES, load
from tests.helpers.nodes import sized

ROOT = Path(__file__).parents[2]
#: For each target, seconds: as long as it is, a busy machine tries less in it.
BOX = sized(3, 8)


@pytest.mark.parametrize("name", NAMES)
def test_what_is_in_the_corpus_passes(name: str) -> None:
    target = load(name)
    files = sorted((CORPUS / name).iterdir())
    assert files
    for file in files:
        target(file.read_bytes())


@pytest.mark.parametrize("name", NAMES)
def test_inputs_that_nobody_has_tried(name: str, tmp_path: Path) -> None:
    """What fails is left in the test's folder; `python -m tests.fuzz NAME FILE` tries it again."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", name, "--seconds", str(BOX)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-8000:]
