"""The Debian package that the containers of tests install."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[3]
#: For the compiler, where what comes of it is only tested: a third of the time that speed would take.
QUICKLY = {"CFLAGS": "-O0 -g0"}


def cannot_build() -> str | None:
    """Why it cannot be built here, or None."""
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


def build(folder: Path) -> Path:
    """The package, built in a folder."""
    done = subprocess.run(
        [PROJECT / "tools/deb", folder], env=os.environ | QUICKLY, capture_output=True, text=True, timeout=1800
    )
    assert done.returncode == 0, done.stderr
    return Path(done.stdout.strip())
