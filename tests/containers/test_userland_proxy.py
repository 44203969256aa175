"""Three organisations on one machine that reach each other by published ports, and so through Docker's userland proxy,
which ends TCP. By docs/docker.md, "Through docker-proxy"."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from lab import Capture, wait_for
from mcencrypt.reading.report import decode
from mcencrypt.store.keys import create_network_key
from tests.helpers.containers.engine import Docker, Site
from tests.helpers.containers.project import MARKERS, Project, now

PORTS = {"alpha": 7331, "beta": 7332, "gamma": 7333}
#: Whom each dials: the chain is alpha's.
SEEDS = {"alpha": None, "beta": "alpha", "gamma": "beta"}
OVERRIDE = """services:
  mcencrypt:
    environment:
      MCENCRYPT_PORTS: "7331,7332,7333"
"""


@pytest.fixture(scope="module")
def organisations(
    docker: Docker, site: Site, sidecar_image: str, node_image: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Project]]:
    """A project for each, whose network is there, and nothing in it so far."""
    folder = tmp_path_factory.mktemp("organisations")
    create_network_key(folder / "network.key")
    (folder / "override.yml").write_text(OVERRIDE)
    made = {}
    with contextlib.ExitStack() as stack:
        for name, port in PORTS.items():
            seed = SEEDS[name]
            environment = {
                "MCENCRYPT_IMAGE": sidecar_image,
                "MULTICHAIN_IMAGE": node_image,
                "NETWORK_KEY_FILE": str(folder / "network.key"),
                "NODE_NAME": name,
                "P2P_PORT": str(port),
                "CHAIN": f"chain1@{site.docker}:{PORTS[seed]}" if seed else "chain1",
                # the gateways of the networks that Docker makes: docker-proxy dials from there
                "MCENCRYPT_RELAYED": "172.16.0.0/12,192.168.0.0/16",
            }
            project = made[name] = Project(docker, "docker-compose.yml", environment, folder / "override.yml")
            stack.enter_context(project.running())
        compose(
            made,
            alpha=("run", "--rm", "--entrypoint", "multichain-util", "node", "create", "chain1"),
            beta=("up", "--no-start", "mcencrypt"),
            gamma=("up", "--no-start", "mcencrypt"),
        )
        yield made


def compose(organisations: dict[str, Project], **commands: tuple[str, ...]) -> None:
    """A command of `docker compose` for each organisation, all at the same time: mostly they wait."""
    with ThreadPoolExecutor() as pool:
        for done in [pool.submit(organisations[name].compose, *words) for name, words in commands.items()]:
            done.result()


@pytest.fixture(scope="module")
def wires(organisations: dict[str, Project]) -> Iterator[list[Capture]]:
    """Captures of each organisation's network, from before its first packet on; and then all are up."""
    with contextlib.ExitStack() as stack:
        found = [stack.enter_context(project.wire("default")) for project in organisations.values()]
        compose(organisations, **dict.fromkeys(organisations, ("up", "--detach")))
        yield found


def settled(organisations: dict[str, Project], since: float) -> None:
    """All nodes get items from then on, and each is encrypted with whom it knows, through the proxy."""
    identities = {name: project.status("mcencrypt")["identity"] for name, project in organisations.items()}
    for name, project in organisations.items():
        project.await_items("node", since=since)
        known = {other for pair in SEEDS.items() if name in pair for other in pair} - {name, None}
        wanted = {(identities[other], "stream") for other in known if other}
        wait_for(lambda project=project, wanted=wanted: links(project) == wanted, f"{name} to know {known}")


def links(project: Project) -> set[tuple[str, str]]:
    """With whom a sidecar has encrypted connections, and how each one's handshake travelled."""
    found = project.status("mcencrypt")["connections"]
    return {(one["identity"], one["carrier"]) for one in found if one["state"] == "encrypted" and one["identity"]}


def test_published_ports_with_the_userland_proxy_are_encrypted(
    organisations: dict[str, Project], wires: list[Capture]
) -> None:
    settled(organisations, 0)
    for wire in wires:
        wire.stop()
        report = decode(str(wire.path), list(PORTS.values()))
        assert report.clean, (report.oddities, [(one.verdict, one.notes) for one in report.conversations])
        assert report.conversations and wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
        assert wire.packets and not wire.dropped


def test_a_sidecar_that_is_restarted_comes_back_through_the_proxy(organisations: dict[str, Project]) -> None:
    beta = organisations["beta"]
    before = now()
    beta.docker("restart", "--time", "60", beta.container("mcencrypt"))
    wait_for(lambda: beta.events("node", "listening", before), "the node to start again")
    settled(organisations, now())


def test_doctor_knows_what_is_in_between(organisations: dict[str, Project], site: Site) -> None:
    gamma = organisations["gamma"]
    words = ("exec", gamma.container("mcencrypt"), "mcencrypt", "doctor", f"{site.docker}:{PORTS['beta']}")
    said = gamma.docker(*words, check=False).stdout
    assert "handshakes pass in the stream only" in said, said
