"""A multichaind: which ports its command line and its chain's files name, and which sockets it has."""

from __future__ import annotations

import pwd
import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from mcencrypt.nodes.processes import LISTEN, Files, Process, TcpSocket, socket_inodes, tcp_sockets
from mcencrypt.store.multichain import DIALS, LISTENS, RPC, parse_all, port_number

PROGRAM = "multichaind"

# How container engines name the control groups of what they run, in /proc/PID/cgroup.
_CONTAINER = re.compile(r"docker|libpod|kubepods|containerd|crio|lxc|machine\.slice")


@dataclass
class Node:
    """One process."""

    process: Process
    chain: str
    #: Ports that its arguments and files name for peers to reach it.
    p2p: set[int] = field(default_factory=set)
    rpc: set[int] = field(default_factory=set)
    #: Ports of peers that they name, with where: `seeds[30447]` is "seed.example:30447".
    seeds: dict[int, str] = field(default_factory=dict)
    #: None if they cannot be told from others'.
    sockets: list[TcpSocket] | None = None
    #: Whether its files could be read, so that `rpc` is complete.
    files_read: bool = False

    @property
    def named(self) -> str:
        return f"{PROGRAM} {self.chain}".rstrip() + f" (pid {self.process.pid})"

    def listening(self) -> set[int]:
        """Ports that it listens on for peers: all but RPC's, and but those that only this host can reach."""
        return {
            one.lport
            for one in self.sockets or ()
            if one.state == LISTEN and one.lport not in self.rpc and not one.loopback
        }

    def sure_ports(self, taken: Iterable[int] = ()) -> set[int]:
        """The ports on which it surely talks to peers.

        What listens on all addresses and is named nowhere may be RPC on a port of its own: only named ports are sure.
        Where none is named, all that it listens on are, unless one is `taken` already and so is the one for peers.
        """
        listening = self.listening()
        if self.p2p:
            return listening & self.p2p or (self.p2p if not listening else set())
        return set() if listening & set(taken) else listening


def is_node(process: Process) -> bool:
    """Whether that is a multichaind, started directly or by an interpreter or wrapper of that name."""
    return PROGRAM in (process.name, *map(_base, process.words[:1]))


def is_daemon(process: Process) -> bool:
    """Whether that is a daemon of mcencrypt's, in whatever network namespace it was started."""
    ours = [at for at, word in enumerate(process.words) if _base(word) == "mcencrypt"]
    return bool(ours) and "daemon" in process.words[ours[0] + 1 :]


def read_node(files: Files, process: Process, sockets: Iterable[TcpSocket] | None = None) -> Node:
    """What can be seen of it. `sockets`: those of its network namespace, if they are known already."""
    options: dict[str, list[str]] = {}
    chain = ""
    # Before its name can stand an interpreter or a wrapper.
    first = next((at for at, word in enumerate(process.words) if _base(word) == PROGRAM), 0)
    for word in process.words[first + 1 :]:
        if word.startswith("-"):
            key, _, value = word.lstrip("-").partition("=")
            options.setdefault(key, []).append(value)
        elif not chain:
            chain = word
    # CHAIN@ADDRESS:PORT joins a chain at that seed
    chain, at, seed = chain.partition("@")
    node = Node(process, chain)
    if at:
        options.setdefault("seednode", []).append(seed)
    _take(node, options, 0)
    if chain:
        _read_files(files, node, options)
    node.p2p -= node.rpc
    inodes = socket_inodes(files, process.pid)
    if inodes is not None:
        there = tcp_sockets(files, process.pid) if sockets is None else sockets
        node.sockets = [one for one in there if one.inode in inodes]
    return node


def in_container(files: Files, pid: int) -> bool:
    """Whether a process whose namespace cannot be seen is a container's, as far as its control group tells."""
    try:
        return bool(_CONTAINER.search(files.text(f"/proc/{pid}/cgroup")))
    except OSError:
        return False


def _take(node: Node, settings: dict[str, list[str]], named: int) -> None:
    """Add what these settings name. `named`: a bit each for ports that a stronger place has named, 1 P2P and 2 RPC."""
    for key, values in settings.items():
        # of one value each the first counts, of the others all
        for value in values[:1] if key in ("port", "rpcport") else values:
            port = port_number(key, value)
            if port is None:
                continue
            if key in DIALS:
                node.seeds.setdefault(port, value)
            elif key in LISTENS and not named & 1:
                node.p2p.add(port)
            elif key in RPC and not named & 2:
                node.rpc.add(port)


def _read_files(files: Files, node: Node, options: dict[str, list[str]]) -> None:
    """What params.dat and multichain.conf say, in the process's own view of the files."""
    pid = node.process.pid
    base = (options.get("datadir") or [_home(files, pid) + "/.multichain"])[0]
    if not base.startswith("/"):
        return
    folder = f"/proc/{pid}/root{base.rstrip('/')}"
    for file in (f"{folder}/{node.chain}/multichain.conf", f"{folder}/multichain.conf"):
        _take(node, _settings(files, file), bool(node.p2p) | bool(node.rpc) << 1)
    params = _settings(files, f"{folder}/{node.chain}/params.dat")
    node.files_read = bool(params)
    for key, ports in (("defaultnetworkport", node.p2p), ("defaultrpcport", node.rpc)):
        value = params.get(key, [""])[0]
        if not ports and value.isdigit():
            ports.add(int(value))


def _settings(files: Files, path: str) -> dict[str, list[str]]:
    try:
        return parse_all(files.text(path))
    except OSError:
        return {}


def _home(files: Files, pid: int) -> str:
    try:
        status = files.text(f"/proc/{pid}/status")
        uid = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid:"))
        return pwd.getpwuid(uid).pw_dir
    except (OSError, KeyError, StopIteration):
        return "/root"


def _base(word: str) -> str:
    return word.rpartition("/")[2]
