"""What the other container tests stand on: the daemon, its isolation, the base image."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from mcencrypt.lab import LabError
from mcencrypt.lab.namespace import members

from . import engine
from .engine import Docker


def machines_docker() -> list[str]:
    """What Docker has set up on the machine itself: rules and bridges."""
    rules = subprocess.run(["iptables-save"], capture_output=True, text=True, check=True).stdout.splitlines()
    links = subprocess.run(["ip", "-oneline", "link"], capture_output=True, text=True, check=True).stdout.splitlines()
    bridges = [link for link in links if "docker" in link or ": br-" in link]
    return [rule for rule in rules if "DOCKER" in rule] + bridges


def test_containers_run_and_talk_inside_a_namespace(docker: Docker, base_image: str) -> None:
    before = machines_docker()
    docker("network", "create", "between")
    serve = "import socket; s = socket.create_server(('', 7)); c, _ = s.accept(); c.sendall(c.recv(9)); c.close()"
    docker("run", "-d", "--name", "server", "--network", "between", base_image, "python3", "-c", serve)
    ask = (
        "import socket, time\n"
        "for _ in range(100):\n"
        "    try: s = socket.create_connection(('server', 7)); break\n"
        "    except OSError: time.sleep(0.1)\n"
        "s.sendall(b'hello'); print(s.recv(9))"
    )
    assert docker("run", "--rm", "--network", "between", base_image, "python3", "-c", ask).stdout == "b'hello'\n"
    docker("rm", "--force", "server")
    assert "DOCKER" in docker.host.run(["iptables", "-S"]).stdout
    assert machines_docker() == before


def test_build_has_the_machines_network_and_tests_have_none(
    docker: Docker, base_image: str, tmp_path: Path
) -> None:
    look = "wc -l </proc/net/route"
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN {look} >/routes\n")
    docker.build("mcencrypt-test/routes", tmp_path)
    in_build = int(docker("run", "--rm", "mcencrypt-test/routes", "cat", "/routes").stdout)
    on_machine = len(Path("/proc/net/route").read_text().splitlines())
    assert in_build == on_machine
    outside = docker("run", "--rm", "--network", "host", base_image, "sh", "-c", look)
    assert int(outside.stdout) < on_machine or on_machine == 1


def test_failed_build_says_what_went_wrong(docker: Docker, base_image: str, tmp_path: Path) -> None:
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN echo 'out of cheese' >&2; exit 3\n")
    with pytest.raises(LabError, match="out of cheese"):
        docker.build("mcencrypt-test/broken", tmp_path)


def test_build_among_containers_is_refused(docker: Docker, base_image: str, tmp_path: Path) -> None:
    docker("create", "--name", "there", base_image, "true")
    try:
        with pytest.raises(LabError, match="before there are containers"):
            docker.build("mcencrypt-test/late", tmp_path)
    finally:
        docker("rm", "there")


def test_everything_goes_with_the_daemon(base_image: str) -> None:
    """Also what a test did not clean up, and what a second daemon beside the first left."""
    with engine.docker() as second:
        namespace, directory = second.host.namespace, second.lab.directory
        second("network", "create", "left")
        assert members(namespace)
    assert not members(namespace)
    assert not directory.exists()
    assert str(directory) not in Path("/proc/mounts").read_text()


def test_missing_docker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "missing", lambda: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert engine.cannot_run() == "containers need dockerd (apt install docker.io)"
