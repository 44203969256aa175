"""TruBudget's containers, by stand-ins of their shape, in the two ways of docs/trubudget.md."""

from __future__ import annotations

import json
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from lab import Capture, Host, Process, Recording, wait_for
from lab.nursery import importable
from mcencrypt.control.client import NoDaemonError, request
from mcencrypt.reading.report import decode
from mcencrypt.store.keys import create_network_key
from tests.helpers.containers.engine import Docker, Site
from tests.helpers.containers.project import MARKERS, Project, now

HERE = Path(__file__).parent / "trubudget"
#: Where nodes listen, and what TruBudget publishes the second one's as.
P2P, PUBLISHED = 7447, 7448
PORTS = f"{P2P},{PUBLISHED}"


@pytest.fixture(scope="module")
def trubudget_image(docker: Docker, sidecar_image: str, node_image: str) -> str:
    tag = "mcencrypt-test/trubudget"
    docker.build(tag, HERE, arguments={"NODE": node_image})
    return tag


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("key") / "network.key"
    create_network_key(file)
    return file


@dataclass
class Daemon:
    """mcencrypt on a host of the lab, for itself or for a container of it."""

    host: Host
    directory: Path
    key: Path
    environment: dict[str, str]
    target: tuple[str, ...] = ()

    def start(self) -> Process:
        self.directory.mkdir(exist_ok=True)
        (self.directory / "config.toml").touch()
        process = self.host.spawn(
            [sys.executable, "-m", "mcencrypt", "daemon", *self.target],
            log=self.directory / "log",
            env={
                **importable(),
                **self.environment,
                "MCENCRYPT_PORTS": PORTS,
                "MCENCRYPT_NETWORK_KEY_FILE": str(self.key),
                "MCENCRYPT_RUN_DIR": str(self.directory / "run"),
                "MCENCRYPT_STATE_DIR": str(self.directory / "state"),
                "MCENCRYPT_CONFIG": str(self.directory / "config.toml"),
            },
        )
        wait_for(lambda: self.answers(process), f"{self.directory.name}'s daemon")
        return process

    def answers(self, process: Process) -> bool:
        if process.exit_code is not None:
            process.failed("the daemon did not start")
        try:
            request(self.directory / "run", "status")
        except NoDaemonError:
            return False
        return True

    def encrypted(self) -> list[Any]:
        """Its encrypted connections whose peer is known."""
        found = request(self.directory / "run", "status")["connections"]
        return [one for one in found if one["state"] == "encrypted" and one["identity"]]


def rpc(host: Host, address: str) -> str:
    """What the node's RPC answers, asked from that host."""
    with host.enter(), urllib.request.urlopen(f"http://{address}/", data=b"{}", timeout=10) as answer:
        return str(answer.read().decode())


def nothing_in_plaintext(wire: Recording) -> None:
    report = decode(str(wire.path), [P2P, PUBLISHED])
    assert report.clean, (report.oddities, [(one.verdict, one.notes) for one in report.conversations])
    assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)


@pytest.fixture
def theirs(docker: Docker, trubudget_image: str) -> Iterator[Project]:
    project = Project(docker, str(HERE / "docker-compose.yml"), {"TRUBUDGET_IMAGE": trubudget_image})
    with project.running():
        yield project


def healthy(docker: Docker, container: str) -> bool:
    return bool(docker.inspect(container)["State"]["Health"]["Status"] == "healthy")


def test_their_files_as_they_are_served_from_the_host(
    docker: Docker, theirs: Project, site: Site, key: Path, tmp_path: Path
) -> None:
    """`--netns docker:NAME` for each; a third organisation elsewhere dials the published ports."""
    theirs.compose("up", "--detach")
    daemons = {
        name: Daemon(docker.host, tmp_path / name, key, docker.environment, ("--netns", f"docker:{name}"))
        for name in ("alpha-node", "beta-node")
    }
    processes = {name: daemon.start() for name, daemon in daemons.items()}
    third = Daemon(site.host, tmp_path / "gamma", key, {})
    processes["gamma"] = third.start()
    node = site.host.python(
        "lab.node",
        *("--name", "gamma", "--items-every", 0.2),
        *("--connect", f"{site.docker}:{P2P}", "--connect", f"{site.docker}:{PUBLISHED}"),
    )

    def settled(since: float) -> None:
        wait_for(lambda: len(third.encrypted()) == 2, "the third organisation to have two encrypted peers")
        for daemon in daemons.values():
            wait_for(lambda daemon=daemon: len(daemon.encrypted()) == 2, "encrypted peers")  # type: ignore[misc]
        theirs.await_items("alpha-node", "beta-node", since=since)

    settled(0)
    with Capture(site.host, "eth0") as elsewhere, theirs.wire("mynetwork") as wire:
        since = now()
        settled(since)
        # RPC, and with it their health checks, is nobody's business here
        assert "TrubudgetChain" in rpc(docker.host, "172.21.0.2:8000")
        wait_for(lambda: healthy(docker, "alpha-node") and healthy(docker, "beta-node"), "health checks to pass")
        docker("restart", "--time", "5", "beta-node")
        settled(now())
        processes["alpha-node"].stop()
        processes["alpha-node"] = daemons["alpha-node"].start()
        settled(now())
    for recording in (elsewhere, wire):
        nothing_in_plaintext(recording)
    node.stop()
    for process in processes.values():
        process.stop()


def test_the_sidecar_in_front_of_their_node(
    docker: Docker, sidecar_image: str, trubudget_image: str, site: Site, key: Path, tmp_path: Path
) -> None:
    """docker/trubudget, as an organisation whose P2P port is published as another one."""
    project = Project(
        docker,
        "trubudget/docker-compose.yml",
        {
            "MCENCRYPT_IMAGE": sidecar_image,
            "TRUBUDGET_IMAGE": trubudget_image,
            "NETWORK_KEY_FILE": str(key),
            "P2P_PUBLISHED": str(PUBLISHED),
        },
    )
    peer = Daemon(site.host, tmp_path / "peer", key, {})
    process = peer.start()
    with project.running(), Capture(site.host, "eth0") as wire:
        project.compose("up", "--detach")
        node = site.host.python("lab.node", "--connect", f"{site.docker}:{PUBLISHED}", "--items-every", 0.2)

        def settled() -> None:
            wait_for(lambda: len(peer.encrypted()) == 1, "an encrypted peer")
            project.await_items("blockchain", since=now())

        settled()
        assert project.status("mcencrypt")["ports"] == [P2P, PUBLISHED]
        # as their API asks it, by the node's name, from another container of the network
        asked = docker(
            *("run", "--rm", "--network", f"{project.name}_default", trubudget_image),
            *("python3", "-c", "import urllib.request as u; print(u.urlopen('http://blockchain:8000/', b'{}').read())"),
        ).stdout
        assert "TrubudgetChain" in asked
        assert json.loads(project.inside("blockchain", "multichain-cli", "TrubudgetChain", "getinfo"))["result"]
        assert project.inside("blockchain", "id", "-u").strip() == "1000"
        project.compose("restart", "blockchain")
        settled()
        since = now()
        project.compose("restart", "mcencrypt")
        wait_for(lambda: project.events("blockchain", "listening", since), "the node to start again")
        assert project.namespace("blockchain") == project.namespace("mcencrypt")
        settled()
        node.stop()
        process.stop()
    nothing_in_plaintext(wire)
