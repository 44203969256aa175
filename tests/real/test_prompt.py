"""`python -m lab`: what its banner promises works at its prompt, and nothing stays behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys

import pytest

from lab import PATIENCE, missing
from lab.namespace import MOUNTS
from lab.nursery import importable

LINES = """\
print(a.run(["ip", "addr"]).stdout)
on()
with Capture(router, "b") as wire:
    result = transfer(a, b, 7331, size=1_000_000)

print("differences:", result.differences, "captured:", wire.path.stat().st_size > 2_000_000)
node_a.type("status")
node_b.type("off", "--now")
print("namespace", a.namespace)
"""


@pytest.mark.skipif(missing() is not None, reason=str(missing()))
def test_what_the_banner_says_can_be_typed() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "lab"],
        input=LINES,
        env=os.environ | importable(),
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr and done.stderr.endswith("the lab is taken down\n")
    for seen in (
        "inet 10.66.1.2/24",
        "differences: []",
        "captured: True",
        "mcencrypt is on (require)",
        "mcencrypt is off",
    ):
        assert seen in done.stdout, seen
    (namespace,) = re.findall(r"namespace (\S+)", done.stdout)
    assert not (MOUNTS / namespace).exists()
