"""Daemons that serve other network namespaces than the one in which they are started."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Host, Process, direct_pair, namespace, wait_for
from lab.messages import MAGIC
from mcencrypt.kernel.fence import Fence, Standing
from mcencrypt.store.keys import create_network_key
from tests.helpers.loopback import own_address
from tests.helpers.nodes import PORT, PORTS, Node, needs_lab
from tests.helpers.pairs import EncryptedPair, event_count, talking
from tests.helpers.wire import assert_encrypted

pytestmark = needs_lab


class Guest(Node):
    """A node whose daemon and commands are started outside of its namespace."""

    def __init__(self, host: Host, network_key: Path, target: str) -> None:
        super().__init__(host, network_key, netns=target)

    def start(self, *words: str, answers: bool = True) -> None:
        environment = os.environ | self._env
        self._process = Process([str(word) for word in self._words("daemon", *words)], self.log_file, environment)
        self.host.lab.processes.append(self._process)
        self.pid = self._process.pid
        if answers:
            wait_for(lambda: self.exited is not None or self.answers(), "the daemon to answer")
            if self.exited is not None:
                self._process.failed("the daemon did not start")

    @property
    def exited(self) -> int | None:
        """The daemon's exit status once it has ended."""
        return self._process.exit_code

    def mcencrypt(self, *words: object, check: bool = True) -> subprocess.CompletedProcess[str]:
        return namespace.run([str(word) for word in self._words(*words)], check=check, env=os.environ | self._env)


def rules_here() -> list[str]:
    """Everything of mcencrypt's in the network namespace of the tests."""
    return [
        line
        for tables in ("iptables-save", "ip6tables-save")
        for line in namespace.run([tables]).stdout.splitlines()
        if "mcencrypt" in line.lower()
    ]


def standing(host: Host) -> Standing:
    """How the fence of a host's namespace is."""
    with host.enter():
        fence = Fence(PORTS)
        try:
            return fence.look()
        finally:
            fence.close()


@pytest.fixture(scope="module")
def pair() -> Iterator[EncryptedPair]:
    """Two hosts: a named by its name, b by a process that lives there; both daemons started by the tests' own host."""
    with direct_pair() as net:
        key = net.lab.directory / "network.key"
        create_network_key(key)
        inhabitant = net.b.spawn(["sleep", "infinity"])
        a, b = Guest(net.a, key, net.a.namespace), Guest(net.b, key, str(inhabitant.pid))
        for node in (a, b):
            node.start()
        found = EncryptedPair(net, a, b)
        yield found
        found.check()


@pytest.mark.parametrize("version", [4, 6])
def test_two_daemons_of_one_host_serve_two_namespaces(pair: EncryptedPair, version: int) -> None:
    before = rules_here()
    with pair.wire() as wire, talking(pair, version) as (a, b):
        for process in (a, b):
            wait_for(lambda process=process: event_count(process, "item") > 5, "items")
        for node, peer in ((pair.a, pair.b), (pair.b, pair.a)):
            assert node.connections("encrypted")
            identity = peer.mcencrypt("identity").stdout.strip()
            wait_for(lambda node=node, identity=identity: identity in json.dumps(node.status()), "the identity")
    assert_encrypted(wire, markers=[MAGIC, b"INVOICE-4711"])
    assert pair.a.rules() and pair.b.rules()
    assert rules_here() == before
    for node in (pair.a, pair.b):
        assert standing(node.host) is Standing.WHOLE and node.status()["gate"]["fence"] in ("owned", "standing")
    here = Fence(())
    assert not here.is_there()
    here.close()
    for node in (pair.a, pair.b):
        assert f"on (require) in {node.status()['netns']}" in node.mcencrypt("status").stdout


def test_switching_off_without_a_daemon_works_in_the_namespace(pair: EncryptedPair) -> None:
    pair.a.kill()
    assert pair.a.rules()
    assert "no rules are left" in pair.a.mcencrypt("off").stdout
    assert not pair.a.rules() and standing(pair.a.host) is Standing.BROKEN
    pair.a.mcencrypt("on")  # starts one in the background
    pair.a.adopt()
    assert pair.a.rules()
    pair.a.kill(signal.SIGTERM)
    pair.a.start()


def test_the_queue_is_that_of_the_namespace(pair: EncryptedPair) -> None:
    """A packet that waits while the daemon is stopped is seen from inside only."""
    from mcencrypt.kernel.queue import statistics

    with pair.a.enter():
        number = pair.a.status()["queue"]["number"]
        assert statistics(number) == (0, 0, 0)
        os.kill(pair.a.pid, signal.SIGSTOP)
        try:
            with pair.a.socket() as knocking:
                knocking.setblocking(False)
                knocking.connect_ex((pair.b.v4, PORT))
                wait_for(lambda: statistics(number)[0] > 0, "the packet to wait")
        finally:
            os.kill(pair.a.pid, signal.SIGCONT)
    assert statistics(number) == (0, 0, 0)


def test_one_state_directory_is_one_daemons(pair: EncryptedPair) -> None:
    with direct_pair() as other:
        rival = Guest(other.a, pair.lab.directory / "network.key", other.a.namespace)
        rival.configure(
            ports=[PORT],
            netns=other.a.namespace,
            network_key_file=str(pair.lab.directory / "network.key"),
            state_dir=str(pair.a.state_dir),
            run_dir=str(rival.run_dir),
        )
        rival.start(answers=False)
        assert rival._process.wait() == 1
        assert f"a daemon already runs in {pair.a.state_dir}" in rival.log()
        assert "choose another state_dir" in rival.log()


class Named:
    """A network namespace of a name, made and taken away as often as a test likes."""

    def __init__(self, lab_name: str) -> None:
        self.name = f"{namespace.owner()}-{lab_name}-guest"

    def make(self) -> None:
        namespace.create(self.name)

    def delete(self) -> None:
        namespace.run(["ip", "netns", "delete", self.name])

    def rules(self) -> str:
        return namespace.run(["ip", "netns", "exec", self.name, "iptables-save"]).stdout


@pytest.fixture
def guest(pair: EncryptedPair) -> Iterator[tuple[Guest, Named]]:
    """A node by the name of a namespace that does not exist yet."""
    with direct_pair() as net:
        named = Named(net.lab.name)
        node = Guest(net.a, pair.lab.directory / "network.key", named.name)
        try:
            yield node, named
        finally:
            if Path("/run/netns", named.name).exists():
                named.delete()


def says(node: Guest) -> str:
    """What `mcencrypt status` says first: the status, or the error."""
    result = node.mcencrypt("status", check=False)
    return (result.stdout or result.stderr).splitlines()[0]


def test_the_daemon_follows_its_namespace(guest: tuple[Guest, Named]) -> None:
    node, named = guest
    named.make()
    node.start()
    for _ in range(2):
        assert "MCENCRYPT" in named.rules()
        named.delete()
        wait_for(lambda: "waits for network namespace" in says(node), "the daemon to wait")
        named.make()
        wait_for(lambda: "mcencrypt is on" in says(node), "the daemon to be there again")
    assert node.exited is None
    # and it remembers how it was left
    node.mcencrypt("off")
    named.delete()
    wait_for(lambda: "waits for" in says(node), "the daemon to wait")
    named.make()
    wait_for(lambda: "mcencrypt is off" in says(node), "the daemon to be there again")
    assert "MCENCRYPT" not in named.rules()
    assert "internal error" not in node.log() and "Traceback" not in node.log()


def test_a_daemon_waits_for_a_first_time(guest: tuple[Guest, Named]) -> None:
    node, named = guest
    node.start("--wait", answers=False)
    wait_for(lambda: "waits for" in says(node), "the daemon to wait")
    result = node.mcencrypt("on", check=False)
    assert result.returncode == 1 and "which is not there now" in result.stderr
    node.config.write_text(node.config.read_text().replace('"require"', '"prefer"'))
    os.kill(node.pid, signal.SIGHUP)
    named.make()
    wait_for(lambda: "mcencrypt is on" in says(node), "the daemon to be there")
    assert "MCENCRYPT" in named.rules()
    assert node.status()["mode"] == "prefer"
    node.kill()


def test_a_waiting_daemon_ends_when_told(guest: tuple[Guest, Named]) -> None:
    node, _ = guest
    node.start("--wait", answers=False)
    wait_for(lambda: "waits for" in says(node), "the daemon to wait")
    os.kill(node.pid, signal.SIGTERM)
    assert node._process.wait() == 0
    assert not node.answers()


def test_the_end_of_a_process_is_the_end_of_its_daemon(pair: EncryptedPair) -> None:
    with direct_pair() as net:
        inhabitant = net.a.spawn(["sleep", "infinity"])
        node = Guest(net.a, pair.lab.directory / "network.key", str(inhabitant.pid))
        node.start()
        inhabitant.kill()
        assert node._process.wait() == 1
        assert f"process {inhabitant.pid} has ended, and its network namespace with it" in node.log()
        # the namespace lives on here, by its name: nothing passes in plaintext
        assert node.rules()
        result = node.mcencrypt("daemon", check=False)
        assert result.returncode == 1
        assert result.stderr == f"mcencrypt: {inhabitant.pid}: there is no process {inhabitant.pid}: it has ended\n"


def test_the_hosts_own_namespace_is_served_with_a_remark(pair: EncryptedPair) -> None:
    with direct_pair() as net:
        inhabitant = net.a.spawn(["sleep", "infinity"])
        node = Node(net.a, pair.lab.directory / "network.key", netns=str(inhabitant.pid))
        node.start()
        assert "this is the host's own network namespace" in node.log()
        assert node.rules()


def test_the_doctor_looks_into_the_namespace_with_and_without_a_daemon(guest: tuple[Guest, Named]) -> None:
    node, named = guest
    named.make()
    for daemon in (False, True):
        if daemon:
            node.start()
        report = json.loads(node.mcencrypt("doctor", "--json", check=False).stdout)
        where = next(one["text"] for one in report["findings"] if one["id"] == "kernel.netns")
        assert where.endswith(f"the daemon (pid {node.pid})" if daemon else f"network namespace {named.name}")


def test_metrics_are_served_outside(guest: tuple[Guest, Named]) -> None:
    node, named = guest
    address = own_address()
    with node.config.open("a") as config:
        config.write(f'metrics_listen = "{address}:9464"\n')
    named.make()
    node.start()

    def scraped() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://{address}:9464/metrics") as answer:
            return b"mcencrypt_enabled 1.0" in answer.read()
        return False

    wait_for(scraped, "the metrics of the daemon in the namespace")
    node.kill(signal.SIGTERM)


@pytest.mark.parametrize("words", [("daemon",), ("on",), ("doctor",)])
def test_a_missing_namespace_is_named(guest: tuple[Guest, Named], words: tuple[str, ...]) -> None:
    node, named = guest
    result = node.mcencrypt(*words, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert f"there is no network namespace {named.name}: `ip netns` lists them" in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_name_that_is_no_namespace(guest: tuple[Guest, Named]) -> None:
    node, named = guest
    path = Path("/run/netns", named.name)
    path.touch()
    try:
        result = node.mcencrypt("daemon", check=False)
    finally:
        path.unlink()
    assert result.returncode == 1 and f"{named.name} is not a network namespace: Invalid argument" in result.stderr


def test_a_namespace_of_another_user_namespace(pair: EncryptedPair) -> None:
    """As a rootless container has: served by real root, or refused in one line; never half."""
    with direct_pair() as net:
        unshare = ["unshare", "--user", "--map-root-user", "--net"]
        inhabitant = net.a.spawn([*unshare, "sh", "-c", "echo up; exec sleep infinity"])
        inhabitant.wait_for("up")
        node = Guest(net.a, pair.lab.directory / "network.key", str(inhabitant.pid))
        node.start(answers=False)
        wait_for(lambda: node.exited is not None or node.answers(), "the daemon")
        enter = f"--net=/proc/{inhabitant.pid}/ns/net"
        if node.exited is None:
            assert node.status()["enabled"]
            assert "MCENCRYPT" in namespace.run(["nsenter", enter, "iptables-save"]).stdout
        else:
            assert node.exited == 1 and node.log().splitlines()[-1].startswith("mcencrypt: ")
