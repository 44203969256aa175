"""One organisation under docker-compose.yml, and a peer at another site that dials its published port."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from lab import Capture, LabError, wait_for
from mcencrypt.reading.report import decode
from mcencrypt.store.keys import create_network_key
from tests.helpers.containers.engine import Docker, Site
from tests.helpers.containers.project import FILES, MARKERS, PORT, Project


@pytest.fixture(scope="module")
def key(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("key") / "network.key"
    create_network_key(file)
    return file


@pytest.fixture
def project(docker: Docker, sidecar_image: str, node_image: str, key: Path) -> Iterator[Project]:
    environment = {
        "MCENCRYPT_IMAGE": sidecar_image,
        "MULTICHAIN_IMAGE": node_image,
        "NETWORK_KEY_FILE": str(key),
        "CHAIN": "chain1",
    }
    project = Project(docker, "docker-compose.yml", environment)
    with project.running():
        yield project


def test_peer_at_another_site_dials_the_published_port(project: Project, site: Site, key: Path, tmp_path: Path) -> None:
    project.compose("run", "--rm", "--entrypoint", "multichain-util", "node", "create", "chain1")
    project.compose("up", "--detach")
    config = tmp_path / "config.toml"
    config.write_text(
        f'ports = [{PORT}]\nnetwork_key_file = "{key}"\nstate_dir = "{tmp_path}/state"\nrun_dir = "{tmp_path}/run"\n'
    )
    with Capture(site.host, "eth0") as wire:
        site.host.python("mcencrypt", "--config", config, "daemon").wait_for("daemon is ready")
        node = site.host.python("lab.node", "--connect", f"{site.docker}:{PORT}", "--items-every", "0.2")
        node.wait_for('"ready"')
        wait_for(lambda: any(one["event"] == "item" for one in node.events()), "an item of the node's")
        project.await_items("node", since=0)
        (connection,) = [one for one in project.status("mcencrypt")["connections"] if one["state"] == "encrypted"]
        assert project.status("mcencrypt")["gate"]["fence"] in ("owned", "standing"), "a sidecar has one too"
        # Docker's NAT shows who it is
        assert connection["peer"].startswith(f"{site.address}:")
        node.stop()
    report = decode(str(wire.path), [PORT])
    assert report.clean, (report.oddities, [(one.verdict, one.notes) for one in report.conversations])
    assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)


def test_sidecar_that_cannot_start_says_why_and_no_node_starts(project: Project, tmp_path: Path) -> None:
    (tmp_path / "network.key").write_text("not a key\n")
    project.environment["NETWORK_KEY_FILE"] = str(tmp_path / "network.key")
    with pytest.raises(LabError):
        project.compose("up", "--detach")
    said = project.docker.logs(project.container("mcencrypt")).splitlines()
    assert said and all(line.startswith("mcencrypt: network_key_file: /run/secrets/network.key: ") for line in said)
    running = project.docker("ps", "--format", '{{.Label "com.docker.compose.service"}}').stdout
    assert "node" not in running.split()


def release(file: Path) -> str:
    """Something of the shape of MultiChain's release; returns its SHA256."""
    with tarfile.open(file, "w:gz") as archive:
        for name in ("multichaind", "multichain-cli", "multichain-util", "README.txt"):
            content = f"#!/bin/sh\necho {name} $0\n".encode()
            entry = tarfile.TarInfo(f"multichain-2.3.3/{name}")
            entry.size, entry.mode = len(content), 0o755
            archive.addfile(entry, io.BytesIO(content))
    return sha256(file.read_bytes()).hexdigest()


def test_multichain_image_is_made_of_a_release_with_the_right_checksum(
    docker: Docker, base_image: str, tmp_path: Path
) -> None:
    (tmp_path / "Dockerfile").write_text((FILES / "multichain" / "Dockerfile").read_text())
    checksum = release(tmp_path / "multichain-2.3.3.tar.gz")
    with pytest.raises(LabError, match=f"has SHA256 {checksum}, and none was expected"):
        docker.build("mcencrypt-test/multichain", tmp_path, arguments={"BASE": base_image})
    docker.build("mcencrypt-test/multichain", tmp_path, arguments={"BASE": base_image, "SHA256": checksum})
    for name in ("multichaind", "multichain-cli", "multichain-util"):
        done = docker("run", "--rm", "mcencrypt-test/multichain", name)
        assert done.stdout == f"{name} /usr/local/bin/{name}\n"
