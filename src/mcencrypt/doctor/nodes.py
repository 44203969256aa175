"""MultiChain nodes that run here: which ports they really use, against the ports that are taken."""

from __future__ import annotations

import pwd
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, ok, problem
from mcencrypt.doctor.machine import Machine
from mcencrypt.doctor.processes import (
    ESTABLISHED,
    LISTEN,
    Process,
    TcpSocket,
    own_netns,
    socket_inodes,
    tcp_sockets,
)
from mcencrypt.store.multichain import parse_settings

PROGRAM = "multichaind"


@dataclass
class Node:
    """A multichaind: what its command line and its chain's files say, and the sockets it has."""

    process: Process
    chain: str
    #: Ports that its arguments and files name for peers.
    p2p: set[int] = field(default_factory=set)
    rpc: set[int] = field(default_factory=set)
    #: None if they cannot be told from others'.
    sockets: list[TcpSocket] | None = None

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


def find_nodes(case: Case) -> list[Node]:
    """All multichaind processes that can be seen, in whatever network namespace."""
    return [_node(case.machine, one) for one in case.processes() if PROGRAM in (one.name, *map(_base, one.words[:1]))]


def check_nodes(case: Case) -> Iterator[Finding]:
    """Running nodes: in this namespace, on the ports that are taken, with all their connections."""
    here = own_netns(case.machine)
    nodes = find_nodes(case)
    if not nodes:
        yield note(
            "nodes.none",
            f"no {PROGRAM} is seen running here",
            "nothing to do if it is not started yet, or in a container whose processes cannot be seen from here",
        )
    local = 0
    for node in nodes:
        if node.process.netns and here and node.process.netns != here:
            yield _elsewhere(node, case)
            continue
        local += 1
        yield from _check_ports(node, case)
        yield from _check_connections(node, case.ports)
    if nodes and not local:
        yield problem(
            "nodes.all-elsewhere",
            f"no {PROGRAM} runs in this network namespace, so there is nothing here to encrypt",
            "run mcencrypt where the node is: `mcencrypt daemon --netns docker:CONTAINER` (or a PID), or the sidecar",
        )
    yield from _check_listeners(case, nodes)


def _elsewhere(node: Node, case: Case) -> Finding:
    ports = node.listening() & set(case.ports) if node.sockets else set()
    text = f"{node.named} is in another network namespace (a container): from here its packets are not seen"
    return (problem if ports else note)(
        "nodes.elsewhere",
        text,
        f"for it run `mcencrypt daemon --netns {node.process.pid}`, or the sidecar of docker/",
    )


def _check_ports(node: Node, case: Case) -> Iterator[Finding]:
    taken = set(case.ports)
    listening = node.listening()
    if node.sockets is None:
        yield note("nodes.unseen", f"the sockets of {node.named} cannot be seen by this user", "run this as root")
        listening = node.p2p
    # What listens on all addresses and is named nowhere may be RPC on a port of its own: only named ports are sure.
    sure = listening & node.p2p or (listening if not node.p2p else set())
    for port in sorted(sure | (node.p2p if not listening else set())):
        if port not in taken:
            yield problem(
                "nodes.port-not-taken",
                f"{node.named} talks to peers on port {port}, which is not in {_list(case.ports)}: plaintext",
                f"add {port} to ports" + (f", or {node.chain!r} to chains" if node.chain else ""),
            )
        else:
            six = any(one.ipv6 for one in node.sockets or () if one.state == LISTEN and one.lport == port)
            yield ok("nodes.port", f"{node.named} uses port {port}{', on IPv6 too' if six else ''}")
    for port in sorted(listening - sure - taken):
        yield note(
            "nodes.port-unknown",
            f"{node.named} also listens on port {port}, which is not among the ports",
            f"if that is for peers, add {port} to ports",
        )
    for port in sorted(node.rpc & taken):
        yield problem(
            "nodes.rpc-taken",
            f"port {port} is the RPC port of {node.named}: API calls from other hosts would need mcencrypt there",
            f"remove {port} from ports",
        )


def _check_connections(node: Node, ports: Sequence[int]) -> Iterator[Finding]:
    """Peers of one chain can sit on different ports: a connection that neither port of is taken is plaintext."""
    outside: dict[int, str] = {}
    for one in node.sockets or ():
        if one.state != ESTABLISHED or one.loopback or one.lport in ports or one.rport in ports:
            continue
        if one.lport not in node.rpc:
            outside.setdefault(one.rport, one.remote)
    for port, remote in sorted(outside.items())[:20]:
        where = f"[{remote}]:{port}" if ":" in remote else f"{remote}:{port}"
        yield problem(
            "nodes.connection-outside",
            f"{node.named} is connected with {where}; neither end is on one of the ports {_list(ports)}: plaintext",
            f"if that is a peer, add {port} to ports on this node",
        )


def _check_listeners(case: Case, nodes: list[Node]) -> Iterator[Finding]:
    sockets = [one for one in tcp_sockets(case.machine) if one.state == LISTEN]
    known = {node.process.pid for node in nodes}
    for port in case.ports:
        inodes = {one.inode for one in sockets if one.lport == port}
        if not inodes:
            yield note(
                "ports.silent",
                f"nobody listens on port {port}",
                "right for a node that is down, or for a port that only peers use",
            )
            continue
        owners = [one for one in case.processes() if inodes & (socket_inodes(case.machine, one.pid) or set())]
        for owner in owners:
            if owner.pid not in known and owner.name != "docker-proxy":
                yield note(
                    "ports.other-program",
                    f"on port {port} listens {owner.name} (pid {owner.pid}), not {PROGRAM}",
                    "right if it is your node under another name; a proxy in front of the node ends TCP: wrong",
                )


def _node(machine: Machine, process: Process) -> Node:
    options: dict[str, str] = {}
    chain = ""
    # Before its name can stand an interpreter or a wrapper.
    first = next((at for at, word in enumerate(process.words) if _base(word) == PROGRAM), 0)
    for word in process.words[first + 1 :]:
        if word.startswith("-"):
            key, _, value = word.lstrip("-").partition("=")
            options.setdefault(key, value)
        elif not chain:
            chain = word
    node = Node(process, chain)
    for key, ports in (("port", node.p2p), ("rpcport", node.rpc)):
        if options.get(key, "").isdigit():
            ports.add(int(options[key]))
    if chain:
        _read_files(machine, node, options)
    inodes = socket_inodes(machine, process.pid)
    if inodes is not None:
        node.sockets = [one for one in tcp_sockets(machine, process.pid) if one.inode in inodes]
    return node


def _read_files(machine: Machine, node: Node, options: dict[str, str]) -> None:
    """What params.dat and multichain.conf say, in the process's own view of the files."""
    pid = node.process.pid
    base = options.get("datadir") or _home(machine, pid) + "/.multichain"
    if not base.startswith("/"):
        return
    folder = f"/proc/{pid}/root{base.rstrip('/')}"
    explicit = bool(node.p2p), bool(node.rpc)
    for file in (f"{folder}/{node.chain}/multichain.conf", f"{folder}/multichain.conf"):
        settings = _settings(machine, file)
        for key, ports, given in (("port", node.p2p, explicit[0]), ("rpcport", node.rpc, explicit[1])):
            if not given and not ports and settings.get(key, "").isdigit():
                ports.add(int(settings[key]))
    params = _settings(machine, f"{folder}/{node.chain}/params.dat")
    for key, ports in (("defaultnetworkport", node.p2p), ("defaultrpcport", node.rpc)):
        if not ports and params.get(key, "").isdigit():
            ports.add(int(params[key]))


def _settings(machine: Machine, path: str) -> dict[str, str]:
    try:
        return parse_settings(machine.text(path))
    except OSError:
        return {}


def _home(machine: Machine, pid: int) -> str:
    try:
        status = machine.text(f"/proc/{pid}/status")
        uid = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("Uid:"))
        return pwd.getpwuid(uid).pw_dir
    except (OSError, KeyError, StopIteration):
        return "/root"


def _base(word: str) -> str:
    return word.rpartition("/")[2]


def _list(ports: Sequence[int]) -> str:
    return ", ".join(map(str, ports)) or "(none)"
