"""What the other container tests stand on: the daemon, its isolation, the base image."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lab import LabError, wait_for
from lab.namespace import members
from tests.helpers.containers import engine
from tests.helpers.containers.engine import Docker


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


def test_build_has_the_machines_network_and_tests_have_none(docker: Docker, base_image: str, tmp_path: Path) -> None:
    look = "readlink /proc/self/ns/net"
    (tmp_path / "Dockerfile").write_text(f"FROM {base_image}\nRUN {look} >/namespace\n")
    docker.build("mcencrypt-test/namespace", tmp_path)
    in_build = docker("run", "--rm", "mcencrypt-test/namespace", "cat", "/namespace").stdout.strip()
    assert in_build == os.readlink("/proc/self/ns/net")
    outside = docker("run", "--rm", "--network", "host", base_image, "sh", "-c", look).stdout.strip()
    assert outside == f"net:[{os.stat(Path('/run/netns', docker.host.namespace)).st_ino}]" != in_build


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


def test_what_a_killed_session_left_is_swept(base_image: str) -> None:
    """Also a daemon that ran in the machine's own namespace, for a build."""
    program = (
        "import sys, signal\n"
        "from tests.helpers.containers import engine\n"
        "context = engine.docker()\n"
        "daemon = context.__enter__()\n"
        "daemon._serve(on_machine=sys.argv[1] == 'building')\n"
        "print(daemon._process.pid, flush=True)\n"
        "signal.pause()\n"
    )
    for phase in ("building", "running"):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
        words = [sys.executable, "-c", program, phase]
        with subprocess.Popen(words, stdout=subprocess.PIPE, text=True, env=environment) as session:
            assert session.stdout
            pid = int(session.stdout.readline())
            session.send_signal(signal.SIGKILL)
        assert Path(f"/proc/{pid}").exists()
        with engine.docker() as next_session:
            next_session("version")
            wait_for(lambda pid=pid: engine.arguments(pid) == [], "the old daemon to end")


def test_missing_docker_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "missing", lambda: None)
    monkeypatch.setenv("PATH", "/nonexistent")
    assert engine.cannot_run() == "containers need dockerd (apt install docker.io)"
