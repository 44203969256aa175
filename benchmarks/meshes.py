"""Full meshes of lab hosts, by mcencrypt and by SSH tunnels, and what each host and each tunnel costs."""

from __future__ import annotations

import contextlib
import io
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from lab import Host, LabError, Process, lan, wait_for
from lab.demo.operators import Operator
from lab.demo.screen import Screen
from lab.topology import introduce

from .measuring import cpu_seconds, family

PORT, SSH_PORT = 7331, 7551
#: Local port of a tunnel to host number N: this and N.
ENTRIES = 20_000


class Cost(NamedTuple):
    """What a network of so many hosts takes, all hosts together."""

    hosts: int
    tunnels: int
    #: Lines that operators write into files, keys and names of hosts included.
    lines: int
    processes: int
    #: Bytes.
    memory: float
    #: Seconds until the last connection stands.
    seconds: float


class Gossip(NamedTuple):
    """What nodes saw that tell everybody what they hear."""

    encrypted: int
    published: int
    #: Items that came to a node, and those that had to.
    arrived: int
    expected: int
    #: From the first item published to the last that came.
    seconds: float
    lost: int
    #: Seconds of the daemons' processors for each item that came to a node.
    cpu_per_item: float


class Law(NamedTuple):
    """Memory and set-up time as so much for each host and so much for each pair of them."""

    memory: tuple[float, float]
    seconds: tuple[float, float]
    #: Lines and processes, likewise; and whether each pair needs a tunnel.
    lines: tuple[float, float]
    processes: tuple[float, float]
    tunnelled: bool

    def at(self, hosts: int) -> Cost:
        """What so many hosts are expected to take."""
        pairs = hosts * (hosts - 1) // 2

        def of(law: tuple[float, float]) -> float:
            return law[0] * hosts + law[1] * pairs

        return Cost(
            hosts,
            pairs if self.tunnelled else 0,
            round(of(self.lines)),
            round(of(self.processes)),
            of(self.memory),
            of(self.seconds),
        )


def law(costs: Sequence[Cost]) -> Law:
    """Least squares through what was measured; nothing costs less than nothing."""

    def fit(values: Iterable[float]) -> tuple[float, float]:
        rows = [
            (cost.hosts, cost.hosts * (cost.hosts - 1) / 2, value) for cost, value in zip(costs, values, strict=True)
        ]
        hh, hp, pp = (sum(row[i] * row[j] for row in rows) for i, j in ((0, 0), (0, 1), (1, 1)))
        hv, pv = (sum(row[i] * row[2] for row in rows) for i in (0, 1))
        determinant = hh * pp - hp * hp
        if not determinant:  # one size alone: all of it is the hosts'
            return hv / hh, 0.0
        each, pair = (hv * pp - pv * hp) / determinant, (pv * hh - hv * hp) / determinant
        if pair < 0:
            return hv / hh, 0.0
        return (each, pair) if each > 0 else (0.0, pv / pp)

    return Law(
        fit(cost.memory for cost in costs),
        fit(cost.seconds for cost in costs),
        fit(cost.lines for cost in costs),
        fit(cost.processes for cost in costs),
        any(cost.tunnels for cost in costs),
    )


def missing_programs() -> str:
    """What has to be installed first, or nothing."""
    absent = [name for name in ("ssh", "sshd", "ssh-keygen") if _program(name) is None]
    return f"{', '.join(absent)}: not installed (Debian: openssh-client, openssh-server)" if absent else ""


def _program(name: str) -> str | None:
    return shutil.which(name) or shutil.which(name, path="/usr/sbin")


def _memory(pids: Iterable[int]) -> int:
    """Bytes that these processes have for themselves, and their part of what they share (smaps_rollup)."""
    total = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
                if line.startswith("Pss:"):
                    total += int(line.split()[1]) * 1024
    return total


def by_mcencrypt(count: int, items: int) -> tuple[Cost, Gossip]:
    """That many hosts with daemons, whose nodes connect to all others and publish so many items each.

    Raises LabError.
    """
    with lan(count, ipv6=False) as hosts:
        introduce(hosts)
        operators = [Operator(host, [PORT], Screen(io.StringIO())) for host in hosts]
        began = time.monotonic()
        operators[0].ask("keygen", str(operators[0].key))
        for operator in operators[1:]:
            operators[0].copy_key(operator)
        for operator in operators:
            operator.ask("on")
        daemons = [operator.status()["pid"] for operator in operators]
        nodes = [_node(hosts, number) for number in reversed(range(count))]  # whom it dials is there already
        wait_for(lambda: all(_count(node, "ready") >= count - 1 for node in nodes), "all to know each other", 300)
        seconds = time.monotonic() - began
        shown = [operator.status()["connections"] for operator in operators]
        encrypted = sum(one["state"] == "encrypted" for connections in shown for one in connections)
        if encrypted != count * (count - 1):
            raise LabError(f"{encrypted} ends are encrypted, not {count * (count - 1)}")
        # the network key, and the ports; what the environment says here stands in a file elsewhere
        cost = Cost(count, 0, 2 * count, count, _memory(daemons), seconds)
        gossip = _gossip(nodes, daemons, items, encrypted // 2)
        for node in nodes:
            node.stop()
        return cost, gossip


def _node(hosts: list[Host], number: int) -> Process:
    """A node that dials all hosts behind it, and publishes when it is told to."""
    others = [word for host in hosts[number + 1 :] for word in ("--connect", f"{host.address(4)}:{PORT}")]
    node = hosts[number].python("lab.node", "--name", hosts[number].name, "--listen", PORT, *others)
    node.wait_for('"listening"')
    return node


def _count(node: Process, event: str) -> int:
    return sum(one.get("event") == event for one in node.events())


def _gossip(nodes: list[Process], daemons: list[int], items: int, connections: int) -> Gossip:
    busy, began = cpu_seconds(daemons), time.monotonic()
    expected = len(nodes) * (len(nodes) - 1) * items
    for number in range(1, items + 1):
        for node in nodes:
            node.signal(signal.SIGUSR1)
        wanted = number * (len(nodes) - 1)
        wait_for(lambda wanted=wanted: all(_count(node, "item") >= wanted for node in nodes), "all items", 300)
    seconds = time.monotonic() - began
    arrived = sum(_count(node, "item") for node in nodes)
    lost = sum(_count(node, "closed") + _count(node, "reset") for node in nodes)
    used = (cpu_seconds(daemons) - busy) / arrived
    return Gossip(connections, len(nodes) * items, arrived, expected, seconds, lost, used)


def by_ssh(count: int, scratch: Path) -> Cost:
    """That many hosts, and a tunnel from each to each that comes after it. Raises LabError."""
    folder = scratch / f"ssh-{count}"
    folder.mkdir()
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    with lan(count, ipv6=False) as hosts:
        introduce(hosts)
        began = time.monotonic()
        lines = 0
        servers, clients = [], []
        for host in hosts:
            for kind in ("host", "user"):
                file = folder / f"{host.name}-{kind}"
                subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
        for number, host in enumerate(hosts):
            lines += _write_files(folder, hosts, number)
            sshd = _program("sshd") or "sshd"
            servers.append(host.spawn([sshd, "-D", "-e", "-f", folder / f"{host.name}-sshd_config"]))
            host.wait_listening(SSH_PORT)
        for number, host in enumerate(hosts):
            words = ["ssh", "-N", "-F", folder / f"{host.name}-ssh_config"]
            clients += [host.spawn([*words, other.name]) for other in hosts[number + 1 :]]
        for number, host in enumerate(hosts):
            for index in range(number + 1, count):
                host.wait_listening(ENTRIES + index)
        seconds = time.monotonic() - began
        pids = family([process.pid for process in servers + clients])
        cost = Cost(count, count * (count - 1) // 2, lines, len(pids), _memory(pids), seconds)
        for process in clients + servers:
            process.stop()
        return cost


def _write_files(folder: Path, hosts: list[Host], number: int) -> int:
    """What an operator writes at one host: lines for the server, for each who may come, and for each tunnel."""
    host = hosts[number]

    def public(other: Host, kind: str) -> str:
        return (folder / f"{other.name}-{kind}.pub").read_text().strip()

    server = [
        f"Port {SSH_PORT}", f"HostKey {folder / host.name}-host", f"AuthorizedKeysFile {folder / host.name}-authorized",
        "StrictModes no", "PermitRootLogin yes", "UsePAM no", "PidFile none", "MaxStartups 1000",
    ]  # fmt: skip
    authorized = [public(other, "user") for other in hosts[:number]]
    known, tunnels = [], []
    for index in range(number + 1, len(hosts)):
        other = hosts[index]
        known.append(f"[{other.address(4)}]:{SSH_PORT} {public(other, 'host')}")
        tunnels += [
            f"Host {other.name}",
            f"HostName {other.address(4)}",
            f"LocalForward {ENTRIES + index} 127.0.0.1:{PORT}",
        ]
    common = [
        "Host *", f"Port {SSH_PORT}", "User root", f"IdentityFile {folder / host.name}-user",
        f"UserKnownHostsFile {folder / host.name}-known_hosts", "BatchMode yes", "ExitOnForwardFailure yes",
    ]  # fmt: skip
    written = {"sshd_config": server, "authorized": authorized, "known_hosts": known, "ssh_config": [*tunnels, *common]}
    for name, content in written.items():
        file = folder / f"{host.name}-{name}"
        file.write_text("".join(f"{line}\n" for line in content))
        file.chmod(0o600)
    return sum(map(len, written.values()))
