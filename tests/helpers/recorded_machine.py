"""A machine made of recorded files and outputs, healthy unless told otherwise."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from typing import Any

from mcencrypt.control.replies import Status
from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, Severity
from mcencrypt.doctor.machine import Output, Saved
from mcencrypt.doctor.routingrules import RoutingRule
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.firewall import Firewall
from mcencrypt.kernel.iptables import V4, V6
from mcencrypt.kernel.links import Link
from mcencrypt.store.config import Config
from tests.helpers import replies

QUEUE = 27971
PORTS = (7331, 8571)
NETNS = "net:[4026531840]"
DAEMON = 4242
NOW = 1795000000.0

PROC_STATUS = """Name:\tmcencrypt
Uid:\t0\t0\t0\t0
VmRSS:\t   55000 kB
CapEff:\t000001ffffffffff
"""
# As Linux 6.1 shows them: a queue, and the netlink socket that reads it.
QUEUES = f"{QUEUE}   {DAEMON}     0 2 65531     0     0       31  1\n"
NETLINK = f"""sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    Drops    Inode
000000004e4d7c2f 12  {DAEMON}       00000000 0        0        0     2        0        9001
00000000d6b9c1a3 0   4243       00000551 0        0        0     2        0        9002
"""
TCP = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
ETHTOOL = "Features for eth0:\ngeneric-segmentation-offload: on\ngeneric-receive-offload: on\nrx-checksumming: on\n"


def healthy_files() -> dict[str, str]:
    return {
        "/proc/sys/kernel/osrelease": "6.1.0-18-amd64\n",
        "/proc/self/uid_map": "         0          0 4294967295\n",
        "/proc/self/mounts": "/dev/sda1 / ext4 rw 0 0\ntmpfs /run tmpfs rw,nosuid 0 0\n",
        "/proc/meminfo": "MemTotal:  2000000 kB\nMemAvailable:  1500000 kB\n",
        "/proc/sys/net/netfilter/nf_conntrack_max": "262144\n",
        "/proc/sys/net/netfilter/nf_conntrack_count": "12\n",
        "/proc/sys/net/netfilter/nf_conntrack_tcp_be_liberal": "0\n",
        "/proc/sys/net/netfilter/nf_conntrack_tcp_loose": "1\n",
        "/proc/sys/net/ipv4/tcp_mtu_probing": "0\n",
        "/proc/sys/net/ipv4/tcp_sack": "1\n",
        "/proc/sys/net/ipv4/ip_no_pmtu_disc": "0\n",
        "/proc/thread-self/net/netfilter/nfnetlink_queue": QUEUES,
        "/proc/thread-self/net/netlink": NETLINK,
        "/proc/thread-self/net/tcp": TCP,
        "/proc/thread-self/net/tcp6": TCP,
    }


def shown(text: str) -> str:
    """Rules as iptables-save shows them after `text` was restored."""
    return text.replace("-I OUTPUT 1", "-A OUTPUT").replace("-I INPUT 1", "-A INPUT")


def our_rules() -> dict[str, str]:
    return {family: shown(text) for family, text in Firewall(PORTS, QUEUE, {}).render().items()}


class Recorded:
    """Satisfies `Machine`."""

    def __init__(self) -> None:
        self.files = healthy_files()
        self.targets = {"/proc/thread-self/ns/net": NETNS}
        self.modes: dict[str, tuple[int, int]] = {}
        self.outputs: dict[str, Output] = {"ethtool -k eth0": Output(0, ETHTOOL)}
        rules = our_rules()
        self.saved: list[Saved] = [
            Saved("/usr/sbin/iptables-save", "nft", V4, rules[V4], ""),
            Saved("/usr/sbin/ip6tables-save", "nft", V6, rules[V6], ""),
        ]
        self.interfaces = [Link("lo", "", True, {}, 65536), Link("eth0", "", False, {"gso_max_size": 65536}, 1500)]
        self.fenced = True
        self.rules_of_routing: list[RoutingRule] = []
        self.clock: int | None = 0x2001
        self.time = NOW
        self.policies: dict[int, int] = {DAEMON: 0x40000002}
        self.user = 0
        self.hosts: dict[str, list[str]] = {}
        self.carries = "passes"
        #: Bytes of the largest packet that the path answers; 0 for none.
        self.largest_ping = 1500
        self.add_process(DAEMON, "mcencrypt", "/usr/bin/python3", "-m", "mcencrypt", "daemon", sockets=("9001",))
        self.files[f"/proc/{DAEMON}/status"] = PROC_STATUS
        self.files["/proc/1/status"] = PROC_STATUS

    def add_process(
        self, pid: int, name: str, *words: str, netns: str = NETNS, sockets: tuple[str, ...] | None = ()
    ) -> None:
        """`sockets`: inodes that it has open, None if they may not be seen."""
        self.files[f"/proc/{pid}/comm"] = f"{name}\n"
        self.files[f"/proc/{pid}/cmdline"] = "".join(f"{word}\0" for word in words)
        self.targets[f"/proc/{pid}/ns/net"] = netns
        for number, inode in enumerate(sockets or (), start=3):
            self.targets[f"/proc/{pid}/fd/{number}"] = f"socket:[{inode}]"
        if sockets is not None:
            self.targets[f"/proc/{pid}/fd/0"] = "/dev/null"

    def change_rules(self, family: str, old: str, new: str) -> None:
        """Replace a part of what iptables-save shows."""
        for at, one in enumerate(self.saved):
            if one.family == family and one.kind == "nft":
                assert old in one.text
                self.saved[at] = one._replace(text=one.text.replace(old, new))

    def text(self, path: str) -> str:
        if path not in self.files:
            raise FileNotFoundError(2, "No such file or directory", path)
        if self.files[path] == "forbidden":
            raise PermissionError(13, "Permission denied", path)
        return self.files[path]

    def names(self, path: str) -> list[str]:
        start = path.rstrip("/") + "/"
        found = {one[len(start) :].split("/")[0] for one in (*self.files, *self.targets) if one.startswith(start)}
        if not found:
            raise PermissionError(13, "Permission denied", path)
        return sorted(found)

    def target(self, path: str) -> str:
        if path not in self.targets:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.targets[path]

    def mode(self, path: str) -> tuple[int, int]:
        if path not in self.modes:
            raise FileNotFoundError(2, "No such file or directory", path)
        return self.modes[path]

    def run(self, *words: str) -> Output:
        return self.outputs.get(" ".join(words), Output(127, ""))

    def rules(self) -> list[Saved]:
        if not self.saved:
            raise OperatorError("iptables-save was not found in /sbin: install iptables")
        return self.saved

    def has_fence(self) -> bool:
        if self.user:
            raise OperatorError("the fence cannot be looked at: run as root")
        return self.fenced

    def links(self) -> list[Link]:
        return self.interfaces

    def routing_rules(self) -> list[RoutingRule]:
        return self.rules_of_routing

    def clock_status(self) -> int | None:
        return self.clock

    def now(self) -> float:
        return self.time

    def scheduler(self, pid: int) -> int | None:
        return self.policies.get(pid)

    def addresses(self, host: str) -> list[str]:
        if host not in self.hosts:
            raise OSError(-2, "Name or service not known")
        return self.hosts[host]

    def echo(self, address: str, size: int) -> float | None:
        return 0.0123 if size <= self.largest_ping else None

    def syn_data(self, address: str, avoid: Collection[int]) -> str:
        assert set(avoid) == set(PORTS)
        return self.carries

    def route_mtu(self, address: str) -> int:
        return 1500

    def uid(self) -> int:
        return self.user

    def pid(self) -> int:
        return 1


def status(**changes: Any) -> Status:
    """A healthy daemon's answer."""
    return replies.status(**{"ports": list(PORTS), "pid": DAEMON, "queue": replies.queue(number=QUEUE)} | changes)


def case(machine: Recorded, running: Status | None, **config: Any) -> Case:
    """An examination; `running` is the daemon's status, None without a daemon."""
    made = replace(Config(ports=PORTS, queue_number=QUEUE), **config)
    silence = "" if running else "no daemon answers at /run/mcencrypt/control.sock"
    return Case(machine, made, status=running, silence=silence, environ={})


def by_id(found: list[Finding], name: str) -> Finding:
    """The only finding of that id."""
    [one] = [finding for finding in found if finding.id == name]
    return one


def worst(found: list[Finding]) -> Severity:
    return max((finding.severity for finding in found), default=Severity.OK)
