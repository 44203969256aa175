"""What tests of containers and of their namespaces share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from mcencrypt.kernel.containers import Engine
from tests.helpers.docker_engine import Answer, engine_at


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Callable[[Answer], Engine]]:
    """Starts an engine that answers as it is told."""
    with ExitStack() as running:
        yield lambda answer: running.enter_context(engine_at(tmp_path / "docker.sock", answer))
