"""Containers for tests: a Docker daemon of their own, and images that are made once per session."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import LabError
from tests.helpers.containers import base, debian, engine
from tests.helpers.containers.engine import Docker, Site
from tests.helpers.containers.machine import MACHINES_BRIDGE
from tests.helpers.once import once

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="session")
def _daemon() -> Iterator[Docker]:
    if reason := engine.cannot_run() or base.cannot_make():
        pytest.skip(reason)
    with contextlib.ExitStack() as stack:
        try:
            daemon = stack.enter_context(engine.docker())
        except LabError as problem:
            pytest.skip(f"no Docker daemon can run here: {problem}")
        yield daemon


@pytest.fixture(scope="module")
def docker(_daemon: Docker) -> Iterator[Docker]:
    """The Docker daemon; containers, networks and volumes that the tests of a module made are gone after them."""
    yield _daemon
    _daemon.clean()


@pytest.fixture(scope="module")
def site(docker: Docker) -> Site:
    """A host elsewhere, of the module's own."""
    return docker.site()


@pytest.fixture(scope="session")
def base_image(_daemon: Docker) -> str:
    """Debian with Python, iptables and systemd: the name of the image that others are built from."""
    try:
        return base.base_image(_daemon)
    except LabError as problem:
        pytest.skip(f"no base image can be made here: {problem}")


@pytest.fixture(scope="session")
def sidecar_image(_daemon: Docker, base_image: str) -> str:
    """mcencrypt's own image, built from docker/Dockerfile."""
    tag = "mcencrypt-test/sidecar"
    arguments = {"BASE": base_image, **base.pip_arguments(), **debian.QUICKLY}
    _daemon.build(tag, ROOT, dockerfile=ROOT / "docker" / "Dockerfile", arguments=arguments)
    return tag


@pytest.fixture(scope="session")
def node_image(_daemon: Docker, base_image: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """In MultiChain's place: a P2P program that speaks its framing, under its name."""
    tag = "mcencrypt-test/node"
    context = tmp_path_factory.mktemp("image") / "node"
    shutil.copytree(ROOT / "tests" / "containers" / "node", context)
    for folder in (ROOT / "src" / "mcencrypt", ROOT / "lab"):
        shutil.copytree(folder, context / "packages" / folder.name, ignore=shutil.ignore_patterns("__pycache__"))
    _daemon.build(tag, context, arguments={"BASE": base_image})
    return tag


@pytest.fixture(scope="session")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Debian package."""
    if reason := debian.cannot_build():
        pytest.skip(reason)
    return once(tmp_path_factory, "package", debian.build)


@pytest.fixture(scope="module")
def machines_network(docker: Docker) -> str:
    """A network for containers with systemd, on the bridge MACHINES_BRIDGE."""
    docker("network", "create", "--opt", f"com.docker.network.bridge.name={MACHINES_BRIDGE}", "machines")
    # a bridge shows what passes between its ports only then
    docker.host.ip("link", "set", MACHINES_BRIDGE, "promisc", "on")
    return "machines"
