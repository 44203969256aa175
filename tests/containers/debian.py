"""The Debian package, built once per session for all tests that install it."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[2]


def _cannot_build() -> str | None:
    python = os.environ.get("PYTHON", "/usr/bin/python3")
    if not all(map(shutil.which, ("dpkg-deb", "cc", "strip"))) or not Path(python).exists():
        return "building the package needs dpkg-deb, cc, strip and the distribution's Python"
    look = (
        "import ensurepip, os, sys, sysconfig\n"
        "os.stat(sysconfig.get_path('include') + '/Python.h')\n"
        "sys.exit(sys.version_info[:2] != (3, 11))"
    )
    if subprocess.run([python, "-c", look], capture_output=True).returncode:
        return f"the package needs {python} to be 3.11 with venv and headers, as in the base image"
    return None


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if reason := _cannot_build():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("package")
    done = subprocess.run([PROJECT / "tools/deb", folder], capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
