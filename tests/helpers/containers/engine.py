"""A Docker daemon of the tests' own, in a network namespace of its own: the machine's Docker, bridges and rules
are not touched, and whatever is left over goes with the namespace.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lab import PATIENCE, Host, Lab, LabError, Process, missing, wait_for
from lab.namespace import PREFIX, orphaned, owner, run
from lab.thirdparty import cache_directory

_LAB_DIRECTORY = re.compile(rf"/({PREFIX}-\d+-\d+-[^/\s]*)")
STORES = ("docker", "docker-2")
TOOLS = {"dockerd": "docker.io", "docker": "docker.io"}


def cannot_run() -> str | None:
    """Why no containers can be run here, or None."""
    if reason := missing():
        return reason
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            return f"containers need {tool} (apt install {package})"
    if compose_command() is None:
        return "containers need docker compose or docker-compose (apt install docker-compose)"
    return None


def compose_command() -> list[str] | None:
    """How Docker Compose is called here, the plugin (v2) or the program (v1.29); None without either."""
    if shutil.which("docker"):
        plugin = subprocess.run(["docker", "compose", "version"], capture_output=True, check=False)
        if plugin.returncode == 0:
            return ["docker", "compose"]
    return ["docker-compose"] if shutil.which("docker-compose") else None


@dataclass(frozen=True)
class Site:
    """A host elsewhere, which reaches Docker's host, and what that publishes, at `docker`."""

    host: Host
    address: str
    docker: str


class Docker:
    """The daemon, and how tests speak to it.

    It runs in one of two ways. For tests: inside `host`, a lab host without any way out, in which Docker makes its
    bridges and rules; `Capture(docker.host, bridge)` records one. While `build` runs: in the machine's own network
    namespace, because builds fetch packages, with all of Docker's own networking off.
    """

    def __init__(self, lab: Lab, store: Path) -> None:
        self.lab = lab
        self._sites = 0
        self.host: Host = lab.host("docker")
        self._store = store
        self._process: Process | None = None
        self._on_machine = False
        self._socket = lab.directory / "docker.sock"
        self._cgroup = f"{owner()}-{lab.name}-docker"
        self.environment = {
            "DOCKER_HOST": f"unix://{self._socket}",
            # without BuildKit: newer clients need a plugin for it that is not always there
            "DOCKER_BUILDKIT": "0",
            "COMPOSE_DOCKER_CLI_BUILD": "0",
        }
        compose = compose_command()
        assert compose
        self._compose = compose
        # containers and networks of a session that was killed must not come back
        for name in ("containers", "network"):
            shutil.rmtree(store / name, ignore_errors=True)

    # ------------------------------------------------------------ commands

    def __call__(
        self, *words: object, timeout: float = 60, check: bool = True, stdin: str | None = None
    ) -> subprocess.CompletedProcess[str]:
        """`docker WORDS...` to its end.

        Raises LabError, with its stderr, if it failed (unless not `check`) or took longer than `timeout` seconds.
        """
        self._serve(on_machine=False)
        return self._client(["docker", *map(str, words)], timeout=timeout, check=check, stdin=stdin)

    def compose(
        self,
        *words: object,
        directory: Path,
        env: Mapping[str, str] | None = None,
        timeout: float = 180,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """`docker compose WORDS...` (or `docker-compose`) in `directory`; `env` is added to the environment."""
        self._serve(on_machine=False)
        words = ("--project-directory", directory, *words)
        return self._client([*self._compose, *map(str, words)], timeout=timeout, check=check, env=env)

    def inspect(self, name: str) -> dict[str, Any]:
        """What `docker inspect` knows of a container, image, network or volume."""
        found: dict[str, Any] = json.loads(self("inspect", name).stdout)[0]
        return found

    def pid(self, container: str) -> int:
        """The process id, on the machine, of a container's first process. Raises LabError if it does not run."""
        pid = int(self.inspect(container)["State"]["Pid"])
        if not pid:
            raise LabError(f"container {container} does not run: {self.logs(container)[-800:]}")
        return pid

    def logs(self, container: str) -> str:
        """All that a container has written."""
        done = self("logs", container, check=False)
        return done.stdout + done.stderr

    def site(self) -> Site:
        """Another host elsewhere. Like all of them it stays as long as this daemon, on a network of its own."""
        self._sites += 1
        site = Site(self.lab.host(f"site{self._sites}"), f"198.18.{self._sites}.2", f"198.18.{self._sites}.1")
        self.lab.link(self.host, f"wan{self._sites}", site.host, "eth0")
        self.lab.assign(self.host, f"wan{self._sites}", f"{site.docker}/24")
        self.lab.assign(site.host, "eth0", f"{site.address}/24")
        return site

    def images(self) -> set[str]:
        """All images as name:tag."""
        return set(self("images", "--format", "{{.Repository}}:{{.Tag}}").stdout.split())

    def size(self, image: str) -> int:
        """An image's size with all its layers, in bytes."""
        return int(self.inspect(image)["Size"])

    def build(
        self,
        tag: str,
        context: Path,
        *,
        dockerfile: Path | None = None,
        arguments: Mapping[str, str] | None = None,
        timeout: float = 1800,
    ) -> None:
        """`docker build` with the machine's network. No container may be there meanwhile: the daemon moves.

        Raises LabError if it failed, with the end of what it wrote, or if there are containers.
        """
        there = self._client(["docker", "ps", "-aq"], timeout=PATIENCE, check=True).stdout if self._process else ""
        if there:
            raise LabError(f"build {tag} before there are containers: {there.split()}")
        words = ["docker", "build", "--network", "host", "--force-rm", "--tag", tag]
        if dockerfile:
            words += ["--file", str(dockerfile)]
        for name, value in (arguments or {}).items():
            words += ["--build-arg", f"{name}={value}"]
        self._serve(on_machine=True)
        done = self._client([*words, str(context)], timeout=timeout, check=False)
        if done.returncode:
            raise LabError(f"docker build of {tag}: exit {done.returncode}: {(done.stdout + done.stderr)[-3000:]}")

    def import_image(self, tag: str, tarball: Path) -> None:
        """Make an image of one layer from a root file system in a tar file."""
        self("import", tarball, tag, timeout=300)

    # ------------------------------------------------------------ the daemon

    def _client(
        self,
        argv: list[str],
        *,
        timeout: float,
        check: bool,
        env: Mapping[str, str] | None = None,
        stdin: str | None = None,
    ) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, **self.environment, **(env or {})}
        return run(argv, timeout=timeout, check=check, stdin=stdin, env=environment)

    def _serve(self, *, on_machine: bool) -> None:
        """Have the daemon run where it is needed."""
        if self._process is not None:
            if self._on_machine == on_machine and self._process.exit_code is None:
                return
            self._stop()
        self._on_machine = on_machine
        run_files = self.lab.directory / "docker"
        settings = self.lab.directory / "daemon.json"
        settings.write_text("{}")  # not those of the machine's own Docker
        argv = ["dockerd", f"--data-root={self._store}", f"--exec-root={run_files}", f"--pidfile={run_files}.pid"]
        argv += [f"--host=unix://{self._socket}", "--exec-opt=native.cgroupdriver=cgroupfs"]
        argv += [f"--cgroup-parent=/{self._cgroup}", f"--config-file={settings}"]
        log = self.lab.log_file("dockerd")
        if on_machine:
            argv += ["--bridge=none", "--iptables=false", "--ip-forward=false"]
            process = Process(argv, log)
            self.lab.processes.append(process)
        else:
            process = self.host.spawn(argv, log=log)
        self._process = process

        def answers() -> bool:
            if process.exit_code is not None:
                process.failed("the Docker daemon did not start")
            return self._client(["docker", "version"], timeout=PATIENCE, check=False).returncode == 0

        try:
            wait_for(answers, "the Docker daemon to answer")
        except LabError:
            self._stop()
            raise

    def _stop(self) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        if process.exit_code is None:
            self.clean()
        process.stop(20)

    def clean(self) -> None:
        """Remove all containers, networks and volumes."""
        for listing, removal in (
            (["ps", "-aq"], ["rm", "--force", "--volumes"]),
            (["network", "ls", "-q", "--filter", "type=custom"], ["network", "rm"]),
            (["volume", "ls", "-q"], ["volume", "rm", "--force"]),
        ):
            found = self._client(["docker", *listing], timeout=PATIENCE, check=False).stdout.split()
            if found:
                self._client(["docker", *removal, *found], timeout=PATIENCE, check=False)

    def close(self) -> None:
        """End everything; images stay in the store for the next session, old nameless ones go."""
        if self._process is not None and self._process.exit_code is None:
            self._client(
                ["docker", "image", "prune", "--force", "--filter", "until=72h"], timeout=PATIENCE, check=False
            )
        try:
            self._stop()
        finally:
            sweep(self._cgroup)
            _unmount(self.lab.directory)
            _unmount(self._store)


@contextlib.contextmanager
def docker() -> Iterator[Docker]:
    """A Docker daemon while the context lasts."""
    sweep()
    with Lab() as lab, _store(lab.directory) as store:
        daemon = Docker(lab, store)
        try:
            yield daemon
        finally:
            daemon.close()


@contextlib.contextmanager
def _store(private: Path) -> Iterator[Path]:
    """Where images are kept: in the user's cache, for the next session too. A store has one daemon at a time, so there
    are as many as run beside each other; when all are in use, images go with the session.
    """
    home = cache_directory() / "containers"
    home.mkdir(parents=True, exist_ok=True, mode=0o700)
    for name in STORES:
        with open(home / f"{name}.lock", "w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            yield home / name
            return
    yield Path(tempfile.mkdtemp(prefix="images-", dir=private))


def sweep(cgroup: str | None = None) -> None:
    """End what runs on although its session was killed: daemons, wherever they ran, and processes of containers; or,
    given a name, the processes of containers in that control group. Their mounts and control groups go too."""
    ending = []
    for pid in [int(entry) for entry in os.listdir("/proc") if entry.isdigit()]:
        if any(_meant(name, cgroup) for name in _groups(pid)) or (cgroup is None and _left_behind(arguments(pid))):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                ending.append(pid)
    wait_for(lambda: not any(arguments(pid) for pid in ending), "the processes of an earlier session to end")
    mounts = [line.split() for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in reversed(mounts):
        if cgroup is None and _left_behind([mount[1]]):
            run(["umount", "--lazy", mount[1]], check=False)
    for tree in {mount[1] for mount in mounts if mount[2].startswith("cgroup")}:
        for top in Path(tree).glob("mclab-*-docker"):
            if _meant(top.name, cgroup):
                for inner in (*sorted(top.rglob("*/"), reverse=True), top):
                    with contextlib.suppress(OSError):
                        inner.rmdir()


def arguments(pid: int) -> list[str]:
    """A process' command line; empty when it has ended."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_text(errors="replace").split("\0")[:-1]
    except OSError:
        return []


def _groups(pid: int) -> list[str]:
    """The topmost control groups that a process is in."""
    try:
        lines = Path(f"/proc/{pid}/cgroup").read_text().splitlines()
    except OSError:
        return []
    return [line.split(":", 2)[2].removeprefix("/").partition("/")[0] for line in lines]


def _meant(name: str, cgroup: str | None) -> bool:
    return name == cgroup if cgroup else name.startswith(f"{PREFIX}-") and orphaned(name)


def _left_behind(words: list[str]) -> bool:
    """Whether the words name something in the directory of a lab whose process is gone."""
    found = _LAB_DIRECTORY.search(" ".join(words))
    return bool(found and orphaned(found[1]))


def _unmount(below: Path) -> None:
    for line in reversed(Path("/proc/mounts").read_text().splitlines()):
        mounted = Path(line.split()[1])
        if mounted.is_relative_to(below):
            run(["umount", "--lazy", str(mounted)], check=False)
