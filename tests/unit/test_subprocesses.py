"""The fixture of all unit tests that keeps them from starting programs by accident."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
from collections.abc import Callable

import pytest


@pytest.mark.parametrize(
    ("start", "shown"),
    [
        (lambda: subprocess.run(["iptables-save", "-t", "raw"], check=False), "iptables-save -t raw"),
        (lambda: os.system("true"), "true"),
        (lambda: os.fork(), "a copy of itself"),
        (lambda: multiprocessing.get_context("spawn").Process().start(), "python"),
    ],
    ids=["subprocess", "system", "fork", "multiprocessing"],
)
def test_without_the_mark_no_program_starts(start: Callable[[], object], shown: str) -> None:
    with pytest.raises(pytest.fail.Exception, match=rf"starts .*{shown}.*@pytest\.mark\.subprocesses"):
        start()


@pytest.mark.subprocesses
def test_with_the_mark_it_does() -> None:
    assert subprocess.run(["true"], check=False).returncode == 0
