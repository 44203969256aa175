"""``mcencrypt daemon``, as far as it comes without a kernel."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lab import PATIENCE
from tests.helpers.commands import SOURCE, fails, run


@pytest.mark.subprocesses
def test_with_json_logs_the_daemon_says_in_json_why_it_does_not_start(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "mcencrypt", "--run-dir", str(tmp_path / "run"), "daemon"]
    environ = {**os.environ, "PYTHONPATH": str(SOURCE), "MCENCRYPT_LOG_FORMAT": "json", "MCENCRYPT_PORTS": "7331"}
    done = subprocess.run(words, env=environ, capture_output=True, text=True, timeout=PATIENCE, check=False)
    assert done.returncode == 1 and not done.stdout
    (line,) = done.stderr.splitlines()
    found = json.loads(line)
    assert found["level"] == "ERROR" and "network_key_file" in found["message"]


def test_waiting_needs_something_to_wait_for() -> None:
    fails(run("daemon", "--wait"), 2, "mcencrypt: --wait needs --netns")
