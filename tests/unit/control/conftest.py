"""A control socket that answers, and the folder it is in."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from mcencrypt.control.client import SOCKET_NAME
from mcencrypt.control.server import ControlServer
from tests.helpers.served import SelectLoop, handler


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "run"


@pytest.fixture
def server(run_dir: Path) -> Iterator[ControlServer]:
    loop = SelectLoop()
    made = ControlServer(run_dir / SOCKET_NAME, handler)
    made.attach(loop)
    loop.start()
    try:
        yield made
    finally:
        loop.stop()
        made.close()
