"""Three organisations under docker-compose.network.yml, from the first packet to `down`."""

from __future__ import annotations

import signal
from collections.abc import Iterator

import pytest

from lab import Capture, wait_for
from mcencrypt.reading.report import decode
from mcencrypt.store.keys import create_network_key
from tests.helpers.containers.engine import Docker
from tests.helpers.containers.project import MARKERS, PORT, Project, now

ORGANISATIONS = ("alpha", "beta", "gamma")
NODES = tuple(f"{name}-node" for name in ORGANISATIONS)
NET_ADMIN, NET_RAW = 12, 13


@pytest.fixture(scope="module")
def birth() -> list[Capture]:
    """The capture of the network's first seconds, once there is one."""
    return []


@pytest.fixture(scope="module")
def network(
    docker: Docker,
    sidecar_image: str,
    node_image: str,
    birth: list[Capture],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Project]:
    key = tmp_path_factory.mktemp("key") / "network.key"
    create_network_key(key)
    environment = {"MCENCRYPT_IMAGE": sidecar_image, "MULTICHAIN_IMAGE": node_image, "NETWORK_KEY_FILE": str(key)}
    project = Project(docker, "docker-compose.network.yml", environment)
    with project.running():
        project.compose("up", "--no-start", *ORGANISATIONS)
        with project.wire("internet") as wire:
            birth.append(wire)
            begun = now()
            project.compose("up", "--detach")
            print(f"up after {now() - begun:.1f} s")
            yield project


def settled(network: Project, since: float) -> None:
    """All three nodes get items, and every sidecar calls its two connections encrypted."""
    network.await_items(*NODES, since=since)
    for name in ORGANISATIONS:
        wait_for(lambda name=name: encrypted_peers(network, name) == 2, f"{name} to have two encrypted peers")


def encrypted_peers(network: Project, name: str) -> int:
    found = network.status(name)["connections"]
    return len({one["identity"] for one in found if one["state"] == "encrypted" and one["identity"]})


def test_nothing_is_in_plaintext_from_the_first_packet_on(network: Project, birth: list[Capture]) -> None:
    settled(network, 0)
    identities = {name: network.inside(name, "mcencrypt", "identity").split()[-1] for name in ORGANISATIONS}
    assert len(set(identities.values())) == 3
    for name in ORGANISATIONS:
        found = network.status(name)["connections"]
        peers = {one["identity"] for one in found if one["state"] == "encrypted"}
        assert peers == set(identities.values()) - {identities[name]}
    (wire,) = birth
    wire.stop()
    report = decode(str(wire.path), [PORT])
    assert report.clean, (report.oddities, [(one.verdict, one.notes) for one in report.conversations])
    assert len(report.conversations) >= 3
    assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
    assert wire.packets and not wire.dropped


def test_sidecar_has_what_it_needs_and_no_more(network: Project) -> None:
    found = network.docker.inspect(network.container("beta"))
    assert found["HostConfig"]["ReadonlyRootfs"] and not found["HostConfig"]["Privileged"]
    daemon = network.status("beta")["pid"]
    process = dict(line.split(":\t") for line in network.inside("beta", "cat", f"/proc/{daemon}/status").splitlines())
    assert int(process["CapEff"], 16) == int(process["CapBnd"], 16) == 1 << NET_ADMIN | 1 << NET_RAW
    assert (process["NoNewPrivs"], process["Seccomp"]) == ("1", "2")
    # no other way in, and the key is no part of image, environment or command line
    assert network.docker.inspect(network.container("beta-node"))["HostConfig"]["CapAdd"] is None
    key = network.inside("beta", "cat", "/run/secrets/network.key").strip()
    assert len(key) > 40 and key not in str(found)
    assert network.inside("beta", "sh", "-c", "touch /etc/x 2>&1 || true").strip().endswith("Read-only file system")


def test_off_and_on(network: Project) -> None:
    # as operators do it once, and then by the way that takes a tenth of the time
    assert "mcencrypt is off" in network.exec("alpha", "mcencrypt", "off", "--now")
    for name in ("beta", "gamma"):
        assert "mcencrypt is off" in network.inside(name, "mcencrypt", "off", "--now")
    since = now()
    with network.wire("internet") as wire:
        network.await_items(*NODES, since=since)
    assert wire.search(MARKERS)[b"INVOICE-4711"] > 0
    wait_for(
        lambda: network.docker.inspect(network.container("beta"))["State"]["Health"]["Status"] == "healthy", "beta"
    )
    for name in ORGANISATIONS:
        assert "mcencrypt is on" in network.inside(name, "mcencrypt", "on")
    assert "mcencrypt is on (require)" in network.exec("alpha", "mcencrypt", "status")
    for name in ORGANISATIONS:
        assert network.status(name)["mode"] == "require"
    since = now()
    with network.wire("internet") as wire:
        settled(network, since)
    assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)


def test_daemon_that_dies_comes_back_in_the_same_container(network: Project) -> None:
    before = network.docker.inspect(network.container("beta-node"))["State"]["StartedAt"]
    namespace, old = network.namespace("beta"), network.status("beta")["pid"]
    since = now()
    with network.wire("internet") as wire:
        network.inside("beta", "sh", "-c", f"kill -{int(signal.SIGKILL)} {old}")
        settled(network, since)
        wait_for(lambda: network.events("beta-node", "ready", since), "the node to talk again")
    assert network.status("beta")["pid"] != old
    assert network.namespace("beta") == network.namespace("beta-node") == namespace
    assert network.docker.inspect(network.container("beta-node"))["State"]["StartedAt"] == before
    assert "was ended by signal 9" in network.docker.logs(network.container("beta"))
    assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)


@pytest.mark.parametrize("how", ["restart", "kill", "stop-and-start"])
def test_sidecar_that_is_restarted_takes_its_node_along(network: Project, how: str) -> None:
    sidecar = network.container("gamma")
    identity, namespace = network.status("gamma")["identity"], network.namespace("gamma-node")
    since = now()
    with network.wire("internet") as wire:
        if how == "restart":
            network.docker("restart", "--time", "60", sidecar)
        else:
            network.docker("kill" if how == "kill" else "stop", sidecar)
            wait_for(lambda: not network.docker.inspect(sidecar)["State"]["Running"], "the sidecar to end")
            # the node is cut off, and waits
            assert network.namespace("gamma-node") == namespace
            network.docker("start", sidecar)
        wait_for(lambda: network.events("gamma-node", "listening", since), "the node to start again")
        assert network.namespace("gamma") == network.namespace("gamma-node")
        settled(network, now())
    assert network.status("gamma")["identity"] == identity
    assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)


def test_node_that_is_restarted_stays_in_the_sidecars_namespace(network: Project) -> None:
    namespace = network.namespace("alpha")
    since = now()
    with network.wire("internet") as wire:
        network.docker("restart", "--time", "60", network.container("alpha-node"))
        wait_for(lambda: network.events("alpha-node", "listening", since), "the node to start again")
        assert network.namespace("alpha-node") == namespace
        settled(network, now())
    assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)


def test_other_settings_take_both_containers_anew(network: Project) -> None:
    old = network.container("beta")
    network.environment["MCENCRYPT_MODE"] = "prefer"
    with network.wire("internet") as wire:
        network.compose("up", "--detach", "--force-recreate")
        settled(network, 0)
    assert network.container("beta") != old and network.status("beta")["mode"] == "prefer"
    assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
    network.environment["MCENCRYPT_MODE"] = "require"


def test_down_leaves_the_state_and_nothing_else(network: Project) -> None:
    identity = network.status("alpha")["identity"]
    network.compose("down", "--timeout", "5")
    docker = network.docker
    mine = f"label=com.docker.compose.project={network.name}"
    assert docker("ps", "-aq", "--filter", mine).stdout == docker("network", "ls", "-q", "--filter", mine).stdout == ""
    network.compose("up", "--detach", "alpha")
    wait_for(lambda: "on (require)" in network.inside("alpha", "mcencrypt", "status", "--check"), "alpha to be on")
    assert network.status("alpha")["identity"] == identity
