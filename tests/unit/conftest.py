"""What holds for every unit test: it starts no other program unless it says so, and leaves nothing to the next."""

from __future__ import annotations

import _posixsubprocess
import logging
import os
import subprocess
import threading
from collections.abc import Iterator
from typing import Any, NoReturn

import pytest


@pytest.fixture(autouse=True)
def log_as_before() -> Iterator[None]:
    """What a test sets up for the log is over with it, and hides no line from the next."""
    root = logging.getLogger()
    handlers, level, raising = list(root.handlers), root.level, logging.raiseExceptions
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.raiseExceptions = raising


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written is not waited for until it is on the disk: no test here takes the power away."""
    monkeypatch.setattr(os, "fsync", lambda fd: None)


_ADVICE = (
    "put something in its place, or, if that program is what is tested, mark the test with @pytest.mark.subprocesses"
)
# multiprocessing's "spawn" is the last one
_WAYS = (*((os, name) for name in ("fork", "forkpty", "posix_spawn", "system")), (_posixsubprocess, "fork_exec"))


@pytest.fixture(autouse=True)
def no_subprocesses(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Whoever wants another program run asks with ``@pytest.mark.subprocesses``.

    A test that starts programs by accident is slow, needs what a machine may not have, and may change that machine.
    """
    if request.node.get_closest_marker("subprocesses") is not None:
        yield
        return
    in_threads: list[str] = []

    def refuse(*words: Any) -> NoReturn:
        started = words[0] if words else "a copy of itself"
        shown = " ".join(map(str, started)) if isinstance(started, list | tuple) else str(started)
        if threading.current_thread() is not threading.main_thread():
            in_threads.append(shown)
        pytest.fail(f"this unit test starts {shown!r}: {_ADVICE}")

    def refuse_popen(popen: Any, args: Any, *words: Any, **options: Any) -> NoReturn:
        refuse(args)

    monkeypatch.setattr(subprocess.Popen, "__init__", refuse_popen)
    for place, name in _WAYS:
        monkeypatch.setattr(place, name, refuse)
    yield
    assert not in_threads, f"this unit test starts {in_threads[0]!r} in a thread: {_ADVICE}"
