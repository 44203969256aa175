"""The Debian package and `mcencrypt install` under a real systemd, process 1 of a container."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import PATIENCE, Capture, wait_for
from tests.helpers.containers.engine import Docker
from tests.helpers.containers.machine import MACHINES_BRIDGE, PORT, Machine

UNIT, FENCE = "mcencrypt.service", "mcencrypt-fence.service"
SECRET = b"INVOICE-4711"
ROOM = "/usr/lib/mcencrypt/lib/python3*/site-packages"

SERVER = f"""
import socket
server = socket.create_server(("", {PORT}))
while True:
    connection, _ = server.accept()
    with connection:
        while data := connection.recv(4096):
            connection.sendall(data)
"""
#: Sends the secret and reads it back, within the seconds given.
CLIENT = f"""
import socket, sys
try:
    with socket.create_connection((sys.argv[1], {PORT}), timeout=float(sys.argv[2])) as connection:
        connection.sendall({SECRET!r})
        got = connection.recv(4096)
except OSError as error:
    sys.exit(f"failed: {{error}}")
sys.exit(0 if got == {SECRET!r} else f"got {{got!r}}")
"""


@pytest.fixture
def machine(docker: Docker, base_image: str, machines_network: str) -> Iterator[Machine]:
    found = Machine(docker, base_image, "alpha", machines_network)
    yield found
    print(found.run("journalctl", "--no-pager", "--unit", UNIT, check=False)[-6000:])
    found.end()


@pytest.fixture
def peer(docker: Docker, base_image: str, machines_network: str) -> Iterator[Machine]:
    found = Machine(docker, base_image, "beta", machines_network)
    yield found
    found.end()


def files(machine: Machine) -> set[str]:
    found = machine.shell("find / -xdev -path /proc -prune -o -path /sys -prune -o -print 2>/dev/null", check=False)
    ignored = ("/var/cache/", "/var/log/", "/var/lib/dpkg/", "/root/", "/var/lib/systemd/", "/var/tmp/")
    return {line for line in found.splitlines() if not line.startswith(ignored)}


def test_package_from_installing_to_purging(machine: Machine, package: Path) -> None:
    before = files(machine)
    machine.install(package)
    assert re.fullmatch(r"mcencrypt \d+\.\d+\S* \(compiled\)\n", machine.run("mcencrypt", "--version"))
    assert machine.show(UNIT, "ActiveState") == "inactive", "there is nothing yet to start with"
    assert machine.show(UNIT, "UnitFileState") == machine.show(FENCE, "UnitFileState") == "enabled"
    failed = machine.attempt("mcencrypt", "on")
    assert failed.returncode == 1 and "no ports: set ports" in failed.stderr and failed.stderr.count("\n") == 1
    machine.write("/etc/mcencrypt/config.toml", f"ports = [{PORT}]\n")
    failed = machine.attempt("mcencrypt", "on")
    assert failed.returncode == 1 and "mcencrypt keygen" in failed.stderr and failed.stderr.count("\n") == 1
    assert machine.rules() == 0
    machine.configure()

    # Readable to nobody, root without CAP_DAC_OVERRIDE included: only as a credential can the daemon have it.
    machine.run("chmod", "0", "/etc/mcencrypt/network.key")
    assert f"started {UNIT}" in machine.run("mcencrypt", "on")
    assert machine.show(UNIT, "ActiveState") == "active"
    assert "dropped: 0 by the kernel" in machine.run("mcencrypt", "status"), "counters that only root may read"
    machine.run("chmod", "0600", "/etc/mcencrypt/network.key")

    # systemctl returns when the daemon says that it is ready: then rules are in, and the queue is bound
    machine.run("systemctl", "stop", UNIT)
    machine.shell("iptables -t raw -F; iptables -t mangle -F; ip6tables -t raw -F; ip6tables -t mangle -F")
    ready = f"systemctl start {UNIT} && iptables-save && ip6tables-save && cat /proc/net/netfilter/nfnetlink_queue"
    said = machine.shell(ready)
    assert said.count("-j NFQUEUE") == 12 and re.search(r"^ *27971 ", said, re.M)
    assert f"on (require), ports {PORT}" in machine.show(UNIT, "StatusText")

    pid = machine.show(UNIT, "MainPID")
    status = machine.run("cat", f"/proc/{pid}/status")
    for line in ("CapEff:\t0000000000003000", "CapBnd:\t0000000000003000", "NoNewPrivs:\t1", "Seccomp:\t2"):
        assert line in status
    seen = set(machine.run("ls", f"/proc/{pid}/root/run").split())
    assert seen <= {"credentials", "mcencrypt", "systemd", "xtables.lock"}, "no socket that root could command by"
    judged = machine.run("systemd-analyze", "security", "--no-pager", UNIT)
    (exposure,) = re.findall(r"Overall exposure level for mcencrypt.service: ([0-9.]+)", judged)
    assert float(exposure) <= 2.5, judged
    print(f"systemd-analyze security: {exposure}")

    # as docs/operations.md says under "Look"
    machine.write("/etc/mcencrypt/config.toml", f'ports = [{PORT}]\nstatus_group = "games"\n')
    refused = machine.attempt("systemctl", "restart", UNIT)
    assert refused.returncode and "cannot be given to group games" in machine.run("mcencrypt", "on", check=False)
    machine.write(f"/etc/systemd/system/{UNIT}.d/group.conf", "[Service]\nGroup=games\nRuntimeDirectoryMode=0710\n")
    machine.shell(f"systemctl daemon-reload && systemctl restart {UNIT}")
    machine.run("systemctl", "reload", UNIT)  # for which systemd goes over the folder once more
    said = machine.shell("su games -s /bin/sh -c 'mcencrypt status --check; mcencrypt off'", check=False)
    assert "is on (require)" in said and re.search("you may not|Permission denied", said), said
    machine.shell(f"rm -r /etc/systemd/system/{UNIT}.d")
    machine.write("/etc/mcencrypt/config.toml", f"ports = [{PORT}]\n")
    machine.shell(f"systemctl daemon-reload && systemctl restart {UNIT}")
    pid = machine.show(UNIT, "MainPID")

    # and what is reloaded under it
    machine.shell("mv /etc/mcencrypt/network.key /root/")
    said = machine.run("mcencrypt", "reload")
    assert "network.key: not found" in said and "unless LoadCredential= names another" in said
    machine.shell("mv /root/network.key /etc/mcencrypt/")

    machine.write("/etc/mcencrypt/config.toml", f'ports = [{PORT}]\nmode = "prefer"\n')
    machine.run("systemctl", "reload", UNIT)
    wait_for(lambda: "on (prefer)" in machine.show(UNIT, "StatusText"), "the reload")
    assert machine.show(UNIT, "MainPID") == pid
    machine.write("/etc/mcencrypt/config.toml", f"ports = [{PORT}]\n")

    machine.run("systemctl", "stop", UNIT)
    assert machine.rules() > 0 and machine.has_fence(), "stopped is closed"
    machine.install(package)
    assert machine.show(UNIT, "ActiveState") == "inactive", "an upgrade does not start what was stopped"
    machine.run("systemctl", "start", UNIT)
    pid = machine.show(UNIT, "MainPID")
    machine.install(package)
    assert machine.show(UNIT, "ActiveState") == "active" and machine.show(UNIT, "MainPID") != pid

    assert "switched off" in machine.run("dpkg", "--remove", "mcencrypt")
    assert machine.rules() == 0 and not machine.has_fence()
    machine.run("test", "-e", "/etc/mcencrypt/network.key", "-a", "-e", "/var/lib/mcencrypt/identity.key")
    machine.install(package)
    assert machine.show(UNIT, "UnitFileState") == machine.show(FENCE, "UnitFileState") == "enabled", "as it was"
    machine.run("mcencrypt", "on")
    machine.run("systemctl", "disable", UNIT, FENCE)
    machine.run("dpkg", "--remove", "mcencrypt")
    machine.install(package)
    assert machine.show(UNIT, "UnitFileState") == "disabled", "so is this"
    machine.run("mcencrypt", "on")
    assert "boot.disabled" in machine.run("mcencrypt", "doctor", "--json", check=False)
    machine.run("dpkg", "--purge", "mcencrypt")
    assert machine.rules() == 0
    assert files(machine) - before == set()
    assert machine.run("systemctl", "list-units", "--failed", "--no-legend").strip() == ""


def test_a_daemon_that_hangs_is_replaced_and_nothing_leaves_meanwhile(
    machine: Machine, peer: Machine, docker: Docker, package: Path
) -> None:
    for one in (machine, peer):
        one.install(package)
    key = machine.configure()
    peer.configure(key)
    # soon enough for a test, and late enough to look at what happens until then
    machine.write(f"/etc/systemd/system/{UNIT}.d/test.conf", "[Service]\nWatchdogSec=6\n")
    machine.run("systemctl", "daemon-reload")
    machine.write("/root/client", CLIENT)
    peer.write("/root/server", SERVER)
    docker("exec", "--detach", "beta", "python3", "/root/server")

    def connects(seconds: float) -> bool:
        return machine.attempt("python3", "/root/client", "beta", seconds).returncode == 0

    wait_for(lambda: connects(1), "the server")
    with Capture(docker.host, MACHINES_BRIDGE) as wire:
        for one in (machine, peer):
            one.run("mcencrypt", "on")
        wait_for(lambda: connects(5), "an encrypted connection")
        pid = machine.show(UNIT, "MainPID")
        machine.run("kill", "-STOP", pid)
        passed = connects(1)
        assert not passed or machine.show(UNIT, "MainPID") != pid, "while the daemon hangs nothing may pass"
        assert machine.rules() > 0
        wait_for(lambda: machine.show(UNIT, "MainPID") not in (pid, "0"), "systemd to start another one")
        wait_for(lambda: machine.show(UNIT, "ActiveState") == "active", "the other one to be ready")
        assert machine.rules() > 0
        wait_for(lambda: connects(5), "an encrypted connection")
    assert machine.show(UNIT, "NRestarts") == "1"
    assert "Watchdog timeout" in machine.run("journalctl", "--no-pager", "--unit", UNIT)
    seen = wire.path.read_bytes()
    assert len(seen) > 2000 and SECRET not in seen


def test_boot_puts_the_rules_in_before_the_network(machine: Machine, package: Path, docker: Docker) -> None:
    machine.install(package)
    machine.configure()
    machine.run("mcencrypt", "on")
    docker("restart", "--time", "60", machine.name, timeout=PATIENCE)
    machine.booted()
    assert machine.show(UNIT, "ActiveState") == "active" and machine.rules() > 0
    ours = int(machine.show(UNIT, "ActiveEnterTimestampMonotonic"))
    network = int(machine.show("network-pre.target", "ActiveEnterTimestampMonotonic"))
    assert 0 < ours <= network
    assert "ordering cycle" not in machine.run("journalctl", "--no-pager", "--boot")


def test_boot_closes_the_ports_even_if_the_daemon_cannot_start(
    machine: Machine, peer: Machine, docker: Docker, package: Path
) -> None:
    machine.install(package)
    machine.configure()
    machine.run("mcencrypt", "on")
    peer.write("/root/server", SERVER)
    docker("exec", "--detach", "beta", "python3", "/root/server")
    machine.write("/root/client", CLIENT)
    machine.run("mv", "/etc/mcencrypt/network.key", "/root/network.key")
    machine.write("/etc/mcencrypt/config.toml", "ports = [\n")
    docker("restart", "--time", "60", machine.name, timeout=PATIENCE)
    machine.booted()
    assert machine.show(UNIT, "ActiveState") in ("inactive", "failed")
    assert machine.show(FENCE, "ActiveState") == "active"
    closed = int(machine.show(FENCE, "ActiveEnterTimestampMonotonic"))
    assert 0 < closed <= int(machine.show("network-pre.target", "ActiveEnterTimestampMonotonic"))
    assert machine.has_fence() and machine.rules() == 0
    assert machine.attempt("python3", "/root/client", "beta", 1).returncode != 0, "nothing passes"

    machine.run("mv", "/root/network.key", "/etc/mcencrypt/network.key")
    machine.write("/etc/mcencrypt/config.toml", f'ports = [{PORT}]\nmode = "prefer"\n')
    machine.run("mcencrypt", "on")
    assert "the fence is in place" in machine.run("mcencrypt", "status")
    assert machine.attempt("python3", "/root/client", "beta", 5).returncode == 0

    # switched off is switched off
    machine.run("mcencrypt", "off")
    assert not machine.has_fence()
    docker("restart", "--time", "60", machine.name, timeout=PATIENCE)
    machine.booted()
    assert machine.show(FENCE, "ActiveState") == "active" and not machine.has_fence()
    assert machine.attempt("python3", "/root/client", "beta", 5).returncode == 0
    judged = machine.run("systemd-analyze", "security", "--no-pager", FENCE)
    (exposure,) = re.findall(r"Overall exposure level for mcencrypt-fence.service: ([0-9.]+)", judged)
    assert float(exposure) <= 2.5, judged


def test_install_from_a_virtual_environment(machine: Machine, package: Path) -> None:
    before = files(machine)
    venv = "/srv/my tools/venv"
    machine.copy_in(package, "/root/mcencrypt.deb")
    machine.shell(
        f"dpkg-deb -x /root/mcencrypt.deb /root/x && python3 -m venv --without-pip '{venv}' &&"
        f" cp -r /root/x{ROOM}/* '{venv}'/lib/python3*/site-packages/ && rm -r /root/x &&"
        f" printf '#!/bin/sh\\nexec \"{venv}/bin/python\" -m mcencrypt \"$@\"\\n' >'{venv}/bin/mcencrypt' &&"
        f" chmod 0755 '{venv}/bin/mcencrypt'"
    )
    command = f"{venv}/bin/mcencrypt"
    said = machine.run(command, "install")
    assert "wrote     /etc/systemd/system/mcencrypt.service" in said
    assert "next: /etc/mcencrypt/config.toml: no ports" in said
    again = machine.run(command, "install")
    assert "wrote" not in again and "kept      /etc/mcencrypt/config.toml" in again
    assert machine.show(UNIT, "UnitFileState") == machine.show(FENCE, "UnitFileState") == "enabled"
    machine.configure()
    assert f"started {UNIT}" in machine.run("mcencrypt", "on"), "by its link in PATH"
    assert venv in machine.show(UNIT, "ExecStart")
    assert machine.rules() > 0

    said = machine.run("mcencrypt", "uninstall")
    assert "left      /etc/mcencrypt" in said
    assert machine.rules() == 0 and not machine.has_fence()
    assert (
        machine.attempt("systemctl", "cat", UNIT).returncode
        == machine.attempt("systemctl", "cat", FENCE).returncode
        == 1
    )
    machine.run("test", "-e", "/etc/mcencrypt/network.key")

    # and with a daemon that systemd does not know of, or none at all and rules that one has left
    machine.run("env", "MCENCRYPT_LOG_LEVEL=info", command, "on")
    machine.run(command, "install")
    machine.run(command, "uninstall")
    assert machine.rules() == 0 and machine.attempt(command, "status").returncode == 1
    machine.run(command, "install")
    machine.run("mcencrypt", "on")
    machine.run("systemctl", "stop", UNIT)
    assert machine.rules() > 0
    machine.run(command, "uninstall", "--purge")
    assert machine.rules() == 0
    machine.run("rm", "-r", "/srv/my tools")
    assert files(machine) - before <= {"/srv/my tools"}
