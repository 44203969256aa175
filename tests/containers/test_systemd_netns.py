"""Instances of mcencrypt@.service: other network namespaces, served under a real systemd."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import wait_for
from tests.helpers.containers.engine import Docker
from tests.helpers.containers.machine import Machine

UNIT = "mcencrypt@blue.service"


def rules(machine: Machine) -> int:
    """Lines of ours in the namespace blue."""
    return machine.shell("ip netns exec blue iptables-save", check=False).count("MCENCRYPT-")


@pytest.fixture
def machine(docker: Docker, base_image: str, machines_network: str) -> Iterator[Machine]:
    """A machine on which root may look at all processes, as elsewhere."""
    found = Machine(docker, base_image, "alpha", machines_network, "SYS_PTRACE")
    yield found
    print(found.run("journalctl", "--no-pager", "--unit", "mcencrypt@*", check=False)[-6000:])
    found.end()


def serve_a_process(machine: Machine) -> None:
    """What CAP_SYS_PTRACE is for: a container's first process has capabilities that the service has not."""
    inhabitant = "ip netns exec blue sh -c 'echo $$ >/root/pid; exec sleep infinity'"
    machine.shell(f"ip netns add blue && {inhabitant} >&- 2>&- &")
    wait_for(lambda: machine.run("cat", "/root/pid", check=False).strip().isdigit(), "the process")
    pid = machine.run("cat", "/root/pid").strip()
    unit = f"mcencrypt@{pid}.service"
    machine.run("systemctl", "start", unit)
    assert rules(machine) > 0
    effective = machine.shell(f"grep CapEff /proc/{machine.show(unit, 'MainPID')}/status")
    assert int(effective.split()[1], 16) == 1 << 12 | 1 << 13 | 1 << 19 | 1 << 21
    machine.shell(f"systemctl stop {unit}; kill {pid}; ip netns delete blue")


def test_an_instance_serves_its_namespace_from_its_making_to_its_end(machine: Machine, package: Path) -> None:
    machine.install(package)
    machine.configure()
    serve_a_process(machine)
    machine.run("systemctl", "start", UNIT)
    assert machine.show(UNIT, "ActiveState") == "active"
    assert machine.show(UNIT, "StatusText") == "waits for network namespace blue"
    pid = machine.show(UNIT, "MainPID")
    for _ in range(2):
        machine.run("ip", "netns", "add", "blue")
        wait_for(lambda: "on (require)" in machine.show(UNIT, "StatusText"), "the daemon to be there")
        assert rules(machine) > 0 and machine.rules() == 0
        assert "mcencrypt is on (require) in blue" in machine.run("mcencrypt", "status", "--netns", "blue")
        machine.run("ip", "netns", "delete", "blue")
        wait_for(lambda: "waits for" in machine.show(UNIT, "StatusText"), "the daemon to wait")
    assert (machine.show(UNIT, "MainPID"), machine.show(UNIT, "NRestarts")) == (pid, "0")

    # side by side with the host's own, and each switched by itself
    machine.run("ip", "netns", "add", "blue")
    wait_for(lambda: rules(machine) > 0, "the rules")
    machine.run("mcencrypt", "on")
    assert machine.rules() > 0
    identities = {machine.run("mcencrypt", "identity", "--netns", name) for name in ("", "blue")}
    assert len(identities) == 2
    wait_for(lambda: "mcencrypt is on" in machine.run("mcencrypt", "status", "--netns", "blue", check=False), "it")
    machine.run("mcencrypt", "off", "--netns", "blue")
    assert rules(machine) == 0 and machine.rules() > 0
    machine.run("systemctl", "stop", UNIT)
    assert f"started {UNIT}" in machine.run("mcencrypt", "on", "--netns", "blue")
    assert rules(machine) > 0

    machine.run("dpkg", "--purge", "mcencrypt")
    assert rules(machine) == 0 and machine.rules() == 0
    assert machine.attempt("test", "-e", "/var/lib/mcencrypt").returncode == 1
    assert machine.attempt("systemctl", "is-active", UNIT).returncode != 0
