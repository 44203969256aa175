"""The packet path compiled, or as Python: what a process runs, and what it says it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import mcencrypt
from mcencrypt import interpreted

SOURCE = Path(mcencrypt.__path__[0]).parent
PROGRAM = """
import mcencrypt.core.fast, mcencrypt.core.prim, mcencrypt.kernel.queue
from mcencrypt.interpreted import build
print(build(), *(module.__file__.rpartition(".")[2] for module in
    (mcencrypt.core.fast, mcencrypt.core.prim, mcencrypt.kernel.queue)))
"""


def modules(**environment: str) -> list[str]:
    """What a fresh process says it runs, and the endings of the files that it has loaded."""
    environment = {**os.environ, "PYTHONPATH": str(SOURCE), "MCENCRYPT_INTERPRETED": "", **environment}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=True)
    return done.stdout.split()


@pytest.mark.subprocesses
def test_sources_are_taken_where_that_was_asked_for() -> None:
    assert modules(MCENCRYPT_INTERPRETED="1") == ["interpreted", "py", "py", "py"]


@pytest.mark.subprocesses
@pytest.mark.skipif(not list(SOURCE.rglob("fast.*.so")), reason="nothing is compiled here: make dev")
def test_what_is_compiled_is_preferred() -> None:
    assert modules() == ["compiled", "so", "so", "so"]


def test_every_compiled_module_has_its_source_beside_it() -> None:
    twins = {types for types in SOURCE.rglob("*.pxd") if not types.with_suffix(".py").exists()}
    assert not twins, "without one it could not run interpreted"
    assert interpreted.build() in ("compiled", "interpreted")
