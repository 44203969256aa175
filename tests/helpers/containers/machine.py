"""A container that systemd runs in as process 1: what comes closest to a machine of its own."""

from __future__ import annotations

import subprocess
from pathlib import Path

from lab import PATIENCE, wait_for
from mcencrypt.kernel.fence import Fence
from mcencrypt.kernel.namespace import setns
from tests.helpers.containers.engine import Docker

PORT = 7331
MACHINES_BRIDGE = "br-machines"
_CGROUPS = Path("/sys/fs/cgroup")
#: Shared mounts are what a machine has, and what credentials reach a service by; Docker's are private.
_INIT = ("sh", "-c", "mount --make-rshared / && exec /sbin/init")


class Machine:
    """`name` is a container on `network`, with more `capabilities` if asked; it has booted when this returns."""

    def __init__(self, docker: Docker, image: str, name: str, network: str, *capabilities: str) -> None:
        self.docker, self.name = docker, name
        unified = (_CGROUPS / "cgroup.controllers").exists()
        docker(
            *("run", "--detach", "--name", name, "--hostname", name, "--network", network),
            *("--cap-add", "SYS_ADMIN", "--cap-add", "NET_ADMIN", "--cap-add", "NET_RAW"),
            *(word for one in capabilities for word in ("--cap-add", one)),
            *("--security-opt", "seccomp=unconfined", "--security-opt", "apparmor=unconfined"),
            *("--stop-signal", "SIGRTMIN+3"),  # what tells systemd to halt, see systemd(1)
            *("--tmpfs", "/run", "--tmpfs", "/run/lock", "--tmpfs", "/tmp:exec"),
            *("--volume", f"{_CGROUPS}:{_CGROUPS}:{'rw' if unified else 'ro'}"),
            *(["--cgroupns", "host"] if unified else []),
            *(image, *_INIT),
        )
        self.booted()

    def end(self) -> None:
        """Remove it."""
        self.docker("rm", "--force", "--volumes", self.name)

    def booted(self) -> None:
        """Wait until all that starts at boot has."""
        states = ("running", "degraded")
        wait_for(lambda: self.run("systemctl", "is-system-running", check=False).strip() in states, "systemd")

    def run(self, *words: object, check: bool = True, stdin: str | None = None) -> str:
        """A command's output, stdout and stderr. Raises LabError if it failed, unless not `check`."""
        done = self.attempt(*words, check=check, stdin=stdin)
        return done.stdout + done.stderr

    def attempt(
        self, *words: object, check: bool = False, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """A command to its end."""
        options = ["--interactive"] if stdin is not None else []
        return self.docker("exec", *options, self.name, *words, check=check, stdin=stdin, timeout=PATIENCE)

    def shell(self, script: str, check: bool = True) -> str:
        return self.run("sh", "-c", script, check=check)

    def write(self, path: str, text: str) -> None:
        self.run("sh", "-c", f"mkdir -p $(dirname {path}) && cat >{path}", stdin=text)

    def copy_in(self, source: Path, target: str) -> None:
        # not `docker cp`: it cannot see what is mounted on /tmp or /run
        self.docker("cp", source, f"{self.name}:{target}")

    def show(self, unit: str, name: str) -> str:
        """A property of a unit, as `systemctl show` gives it."""
        return self.run("systemctl", "show", "--property", name, "--value", unit).strip()

    def rules(self) -> int:
        """How many lines of both families' rules are ours."""
        return self.shell("iptables-save; ip6tables-save").count("MCENCRYPT-")

    def has_fence(self) -> bool:
        """Whether there is a fence in its network namespace."""
        pid = self.docker("inspect", "--format", "{{.State.Pid}}", self.name).stdout.strip()
        with open(f"/proc/{pid}/ns/net") as there, open("/proc/thread-self/ns/net") as home:
            assert setns(there.fileno()) == 0
            try:
                return Fence(()).is_there()
            finally:
                assert setns(home.fileno()) == 0

    # ------------------------------------------------------------ mcencrypt there

    def install(self, package: Path) -> None:
        """Install the Debian package."""
        self.copy_in(package, "/root/mcencrypt.deb")
        self.run("dpkg", "--install", "/root/mcencrypt.deb")

    def configure(self, key: str | None = None) -> str:
        """Ports and a network key, a new one if none is given; returns the key."""
        self.write("/etc/mcencrypt/config.toml", f"ports = [{PORT}]\n")
        if key is None:
            self.run("mcencrypt", "keygen")
        else:
            self.write("/etc/mcencrypt/network.key", key)
            self.run("chmod", "0600", "/etc/mcencrypt/network.key")
        return self.run("cat", "/etc/mcencrypt/network.key")
