"""Containers that know nothing of mcencrypt, served by daemons on their host."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import pytest

from lab import Capture, Process, Recording, wait_for
from lab.messages import MAGIC
from lab.nursery import importable
from mcencrypt.control.client import NoDaemonError, request
from mcencrypt.store.keys import create_network_key
from tests.helpers.containers.engine import Docker

PORT = 7331
MARKERS = [b"INVOICE-4711", b"version\0", MAGIC]
ROOT = Path(__file__).resolve().parents[2]
BRIDGE = "br-served"


@dataclass
class Served:
    """A container with a node in it, and the daemon on the host that serves it."""

    docker: Docker
    name: str
    directory: Path

    def run(self, image: str, *node: object) -> None:
        """Make the container anew and start it."""
        self.docker(
            *("run", "--detach", "--name", self.name, "--network", "served", "--volume", f"{ROOT}:/source:ro"),
            *("--env", "PYTHONPATH=/source:/source/src", "--cap-drop", "ALL", image, "python3", "-m", "lab.node"),
            *("--name", self.name, "--listen", PORT, "--items-every", 0.05, *node),
        )

    def serve(self, *words: str) -> Process:
        """Start the daemon."""
        self.directory.mkdir(exist_ok=True)
        log = self.directory / "log"
        command = [*self._command("daemon"), *words]
        return self.docker.host.spawn(command, log=log, env=self._environment())

    def mcencrypt(self, *words: str, target: str | None = None) -> tuple[int, str]:
        """Run a command on the host: exit status and everything that it said."""
        done = self.docker.host.run(self._command(*words, target=target), check=False, env=self._environment())
        return done.returncode, done.stdout + done.stderr

    def answers(self) -> bool:
        try:
            request(self.directory / "run", "status")
        except NoDaemonError:
            return False
        return True

    def connected(self) -> bool:
        """Whether a connection is encrypted, and no other is there."""
        code, said = self.mcencrypt("status", "--json")
        return code == 0 and {one["state"] for one in json.loads(said)["connections"]} == {"encrypted"}

    def log(self) -> str:
        return (self.directory / "log").read_text()

    def _command(self, *words: str, target: str | None = None) -> list[object]:
        return [sys.executable, "-m", "mcencrypt", *words, "--netns", target or f"docker:{self.name}"]

    def _environment(self) -> dict[str, str]:
        settings = {
            "PORTS": PORT,
            "NETWORK_KEY_FILE": self.directory.parent / "network.key",
            "RUN_DIR": self.directory / "run",
            "STATE_DIR": self.directory / "state",
            "CONFIG": self.directory.parent / "config.toml",
        }
        named = {f"MCENCRYPT_{name}": str(value) for name, value in settings.items()}
        return {**named, **self.docker.environment, **importable()}


@pytest.fixture
def nodes(docker: Docker, base_image: str, tmp_path: Path) -> Iterator[list[Served]]:
    """Two containers that talk, encrypted."""
    create_network_key(tmp_path / "network.key")
    (tmp_path / "config.toml").write_text("")
    docker("network", "create", "--opt", f"com.docker.network.bridge.name={BRIDGE}", "served")
    # a bridge shows what passes between its ports only then
    docker.host.ip("link", "set", BRIDGE, "promisc", "on")
    one, two = (Served(docker, name, tmp_path / name) for name in ("node1", "node2"))
    daemons = [one.serve("--wait"), two.serve("--wait")]
    for node in (one, two):
        wait_for(lambda node=node: "waits for container" in node.mcencrypt("status")[1], "the daemons to wait")
    try:
        one.run(base_image)
        two.run(base_image, "--connect", f"node1:{PORT}")
        for node in (one, two):
            wait_for(lambda node=node: node.connected(), "an encrypted connection")
        yield [one, two]
        for node, daemon in zip((one, two), daemons, strict=True):
            assert daemon.exit_code is None
            assert "internal error" not in node.log() and "Traceback" not in node.log()
    except BaseException:
        for node in (one, two):
            print(f"--- {node.name}\n{node.log()[-3000:]}\n{docker.logs(node.name)[-1000:]}")
        raise
    finally:
        for daemon in daemons:
            daemon.stop()
        docker("rm", "--force", "node1", "node2")
        docker("network", "rm", "served")


def assert_encrypted(wire: Recording) -> None:
    """Data was there, all of it handshake or record."""
    from mcencrypt.reading.report import decode

    report = decode(str(wire.path), [PORT])
    verdicts = {one.verdict.value for one in report.conversations}
    assert report.clean and "encrypted" in verdicts and verdicts <= {"encrypted", "no data"}, verdicts
    assert not any(wire.search(MARKERS).values())


def items(docker: Docker, name: str) -> int:
    return docker.logs(name).count('"item"')


def test_an_unmodified_container_is_served(docker: Docker, nodes: list[Served]) -> None:
    with Capture(docker.host, BRIDGE) as wire:
        for node in nodes:
            before = items(docker, node.name)
            wait_for(lambda node=node, before=before: items(docker, node.name) > before + 5, "items")
    assert any(segment.payload for segment in wire.segments(PORT))
    assert not any(wire.search(MARKERS).values())
    # the host's own rules are Docker's alone
    assert "MCENCRYPT" not in docker.host.run(["iptables-save"]).stdout
    code, said = nodes[0].mcencrypt("off", "--now")
    assert code == 0, said
    code, said = nodes[0].mcencrypt("status")
    assert code == 0 and "mcencrypt is off in docker:node1" in said


@pytest.mark.parametrize("way", ["restart", "kill and start", "made anew"])
def test_a_container_that_starts_again_is_served_again(
    docker: Docker, nodes: list[Served], base_image: str, way: str
) -> None:
    node = nodes[1]
    with Capture(docker.host, BRIDGE) as wire:
        if way == "restart":
            docker("restart", node.name)
        elif way == "kill and start":
            docker("kill", node.name)
            wait_for(lambda: "waits for container node2" in node.mcencrypt("status")[1], "the daemon to wait")
            docker("start", node.name)
        else:
            docker("rm", "--force", node.name)
            node.run(base_image, "--connect", f"node1:{PORT}")
        before = items(docker, "node1")
        wait_for(node.connected, "an encrypted connection")
        wait_for(lambda: items(docker, "node1") > before, "an item")
    # with a peer that requires encryption not even the moment before the rules shows any data
    assert_encrypted(wire)
    assert node.log().count("the network namespace has gone; waiting for the next") == 1


def test_refusals(docker: Docker, base_image: str, tmp_path: Path) -> None:
    create_network_key(tmp_path / "network.key")
    (tmp_path / "config.toml").write_text("")
    node = Served(docker, "stopped", tmp_path / "stopped")
    node.directory.mkdir()
    docker("create", "--name", "stopped", base_image, "true")
    try:
        for target, said in (
            ("docker:stopped", "docker:stopped: the container does not run: start it"),
            ("docker:nobody", "docker:nobody: no such container: `docker ps --all` shows their names"),
        ):
            code, output = node.mcencrypt("daemon", target=target)
            assert code == 1 and output.startswith(f"mcencrypt: {said}") and output.count("\n") == 1
    finally:
        docker("rm", "--force", "stopped")


def test_a_container_on_the_hosts_network(docker: Docker, base_image: str, tmp_path: Path) -> None:
    create_network_key(tmp_path / "network.key")
    (tmp_path / "config.toml").write_text("")
    node = Served(docker, "hostly", tmp_path / "hostly")
    docker("run", "--detach", "--name", "hostly", "--network", "host", base_image, "sleep", "infinity")
    daemon = node.serve()
    try:
        wait_for(lambda: daemon.exit_code is not None or node.answers(), "the daemon to answer")
        assert "this is the host's own network namespace: netns is not needed" in node.log()
        assert "MCENCRYPT" in docker.host.run(["iptables-save"]).stdout
        assert node.mcencrypt("off")[0] == 0
    finally:
        daemon.stop()
        docker("rm", "--force", "hostly")


KNOCKS, SHUT = 100, 8
#: Knocks until nobody has opened that many times in a row, but no more than so often: a count, so that a busy machine
#: takes longer and says the same.
KNOCKING = """
begun=$EPOCHREALTIME last=$begun knocks=0 refused=0
while [ $knocks -lt {knocks} ] && [ $refused -lt {shut} ]; do
    knocks=$(( knocks + 1 ))
    # connect() succeeds in either case. A node that got what was written ends the connection; else it is reset
    if timeout 3 bash -c 'exec 3<>/dev/tcp/{address}/7331; head -c 24 /dev/zero >&3 && cat <&3 >/dev/null' 2>&-; then
        last=$EPOCHREALTIME refused=0
    else
        refused=$(( refused + 1 ))
    fi
    sleep 0.05
done
echo knocked $knocks $refused $begun $last
"""


def test_how_long_a_new_container_is_open(docker: Docker, nodes: list[Served], base_image: str) -> None:
    """The window in which a container without rules reaches a peer that takes plaintext."""
    peer, node = nodes
    assert peer.mcencrypt("off", "--now")[0] == 0
    address = docker.inspect("node1")["NetworkSettings"]["Networks"]["served"]["IPAddress"]
    docker("rm", "--force", "node2")
    wait_for(lambda: "waits for container node2" in node.mcencrypt("status")[1], "the daemon to wait")
    open_for, refused = {}, {}
    try:
        for name in ("node2", "unserved"):
            knocking = ("bash", "-c", KNOCKING.format(address=address, knocks=KNOCKS, shut=SHUT))
            docker("run", "--detach", "--name", name, "--network", "served", base_image, *knocking)
        for name in ("node2", "unserved"):
            wait_for(lambda name=name: "knocked " in docker.logs(name), "the measurement")
            _, in_a_row, begun, last = map(float, docker.logs(name).split("knocked ")[1].split())
            open_for[name], refused[name] = last - begun, in_a_row
            if name == "node2":
                rules = re.findall(r"(\S+) INFO the network namespace is there", node.log())[-1]
                late = datetime.fromisoformat(rules).timestamp() - begun
    finally:
        docker("rm", "--force", "unserved")
    print(f"rules are in {late * 1000:.0f} ms after the program began; last let through:", open_for)
    assert refused == {"node2": SHUT, "unserved": 0}
