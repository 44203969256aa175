"""`join`, the node's entry point: not before mcencrypt, not outside its network, and no longer than that lasts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import wait_for
from mcencrypt.store.keys import create_network_key
from tests.helpers.containers.engine import Docker
from tests.helpers.containers.project import FILES

SETTINGS = ("--env", "MCENCRYPT_PORTS=7331", "--env", "MCENCRYPT_NETWORK_KEY_FILE=/run/secrets/network.key")
RIGHTS = ("--cap-drop", "ALL", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW")


@pytest.fixture
def sidecar(docker: Docker, sidecar_image: str, tmp_path: Path) -> Iterator[str]:
    """A sidecar in whose network nothing runs yet, with a volume `shared`."""
    create_network_key(tmp_path / "network.key")
    key = f"{tmp_path}/network.key:/run/secrets/network.key:ro"
    volumes = ("--volume", "shared:/run/mcencrypt-shared", "--volume", key)
    docker("network", "create", "joined")
    docker(
        "run", "--detach", "--name", "sidecar", "--network", "joined", *RIGHTS, *SETTINGS, *volumes,
        "--entrypoint", "sh", sidecar_image, "-c",
        "readlink /proc/self/ns/net >/run/mcencrypt-shared/namespace; sleep 600",
    )  # fmt: skip
    yield "sidecar"
    docker.clean()


def node(docker: Docker, image: str, network: str, *command: str) -> None:
    mounts = ("--volume", f"{FILES}/join:/join:ro", "--volume", "shared:/run/mcencrypt-shared:ro")
    words = ("--network", network, *mounts, "--entrypoint", "/bin/sh", image, "/join", *command)
    docker("run", "--detach", "--name", "node", *words)


def state(docker: Docker) -> tuple[bool, int]:
    """Whether the node runs, and its exit status."""
    found = docker.inspect("node")["State"]
    return found["Running"], found["ExitCode"]


def test_node_starts_when_the_rules_are_there_and_not_before(docker: Docker, sidecar: str, base_image: str) -> None:
    node(docker, base_image, f"container:{sidecar}", "sh", "-c", "echo started; exec sleep 600")
    wait_for(lambda: "waiting for mcencrypt" in docker.logs("node"), "the node to wait")
    docker("exec", "--detach", sidecar, "mcencrypt", "daemon")
    wait_for(lambda: docker("exec", sidecar, "mcencrypt", "status", check=False).returncode == 0, "the daemon")
    wait_for(lambda: "started" in docker.logs("node"), "the node to start")
    docker("stop", "--time", "60", "node")
    # ended by the signal that `docker stop` sends, not by the kill that would follow
    assert state(docker) == (False, 128 + 15)


def test_node_that_ends_is_not_held(docker: Docker, sidecar: str, base_image: str) -> None:
    docker("exec", "--detach", sidecar, "mcencrypt", "daemon")
    node(docker, base_image, f"container:{sidecar}", "sh", "-c", "exit 7")
    wait_for(lambda: not state(docker)[0], "the node to end")
    assert state(docker) == (False, 7)


def test_node_in_another_network_does_not_start(docker: Docker, sidecar: str, base_image: str) -> None:
    docker("exec", "--detach", sidecar, "mcencrypt", "daemon")
    wait_for(lambda: docker("exec", sidecar, "mcencrypt", "status", check=False).returncode == 0, "the daemon")
    node(docker, base_image, "joined", "sh", "-c", "echo started")
    wait_for(lambda: not state(docker)[0], "the node to give up")
    assert state(docker) == (False, 1)
    assert "this is not mcencrypt's network" in docker.logs("node") and "started" not in docker.logs("node")


def test_stopping_while_it_waits(docker: Docker, sidecar: str, base_image: str) -> None:
    node(docker, base_image, f"container:{sidecar}", "sh", "-c", "echo started")
    wait_for(lambda: "waiting for mcencrypt" in docker.logs("node"), "the node to wait")
    docker("stop", "--time", "60", "node")
    assert state(docker) == (False, 0) and "started" not in docker.logs("node")
