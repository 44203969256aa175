"""Containers for tests: a Docker daemon of their own, and images that are made once per session."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import base, engine
from .debian import package
from .engine import Docker

__all__ = ["package"]  # a fixture


@pytest.fixture(scope="session")
def _daemon() -> Iterator[Docker]:
    if reason := engine.cannot_run() or base.cannot_make():
        pytest.skip(reason)
    with engine.docker() as daemon:
        yield daemon


@pytest.fixture(scope="module")
def docker(_daemon: Docker) -> Iterator[Docker]:
    """The Docker daemon; containers, networks and volumes that the tests of a module made are gone after them."""
    yield _daemon
    _daemon.clean()


@pytest.fixture(scope="session")
def base_image(_daemon: Docker) -> str:
    """Debian with Python, iptables and systemd: the name of the image that others are built from."""
    return base.base_image(_daemon)
