"""MultiChain nodes that run here: which ports they really use, against the ports that are taken."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, ok, problem
from mcencrypt.nodes.node import PROGRAM, Node, is_daemon, is_node, read_node
from mcencrypt.nodes.processes import ESTABLISHED, LISTEN, SYN_SENT, TcpSocket, own_netns, socket_inodes, tcp_sockets
from mcencrypt.nodes.sight import Uncovered, look, uncovered


def find_nodes(case: Case) -> list[Node]:
    """All multichaind processes that can be seen, in whatever network namespace."""
    return [read_node(case.machine, one) for one in case.processes() if is_node(one)]


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
    local = unserved = 0
    served = {one.netns for one in case.processes() if is_daemon(one)}
    for node in nodes:
        if node.process.netns and here and node.process.netns != here:
            if node.process.netns in served:
                yield ok("nodes.served", f"{node.named} is in another network namespace, with a mcencrypt of its own")
            else:
                unserved += 1
                yield _elsewhere(node, case)
            continue
        local += 1
        yield from _check_ports(node, case)
        yield from _check_connections(node, case.ports)
    if unserved and not local:
        yield problem(
            "nodes.all-elsewhere",
            f"no {PROGRAM} runs in this network namespace, so there is nothing here to encrypt",
            "run mcencrypt where the node is: `mcencrypt daemon --netns docker:CONTAINER` (or a PID), or the sidecar",
        )
    if not local:
        yield from _check_uncovered(case)
    yield from _check_listeners(case, nodes)


def _check_uncovered(case: Case) -> Iterator[Finding]:
    """Where no node's process can be seen: sockets of programs that cannot, as this command or the daemon sees them."""
    sockets, others = tcp_sockets(case.machine), case.config.other_ports
    found = [
        one
        for seen in look(case.machine, sockets, case.ports)
        if seen is not None
        for one in uncovered(sockets, seen, case.ports, others)
    ]
    for told in case.status["uncovered"] if case.status else ():
        one = Uncovered(told["doing"], told["port"], told["peer"] or "", told["owner"] or "", told["sure"])
        if all((one.doing, one.port) != (known.doing, known.port) for known in found):
            found.append(one)
    for one in found:
        if one.sure:
            yield problem(
                "nodes.uncovered",
                f"{one.described}, and nobody on {_list(case.ports)}: if that is the node, it talks in plaintext",
                f"add {one.port} to ports; if it is another program's, to other_ports",
            )
        else:
            yield note(
                "nodes.uncovered-unsure",
                f"{one.described}, which is on none of the ports {_list(case.ports)}",
                f"if that is the node and a peer, add {one.port} to ports; if not, to other_ports",
            )


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
    sure = node.sure_ports()
    for port in sorted(sure):
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
    outside: dict[int, TcpSocket] = {}
    # a peer that has dialled us is on a port of its system's choice; ours is the one that matters, and is named already
    own = node.rpc | {one.lport for one in node.sockets or () if one.state == LISTEN}
    for one in node.sockets or ():
        if one.state not in (ESTABLISHED, SYN_SENT) or one.loopback or one.lport in ports or one.rport in ports:
            continue
        if one.lport not in own:
            outside.setdefault(one.rport, one)
    for port, one in sorted(outside.items())[:20]:
        where = f"[{one.remote}]:{port}" if ":" in one.remote else f"{one.remote}:{port}"
        advice = f"if that is a peer, add {port} to ports on this node"
        if one.state == SYN_SENT:
            known = ", as its command line says" if port in node.seeds else ""
            yield problem(
                "nodes.dials-outside",
                f"{node.named} dials {where}{known}; port {port} is not among the ports {_list(ports)}: in plaintext, "
                "which a peer that is on refuses",
                advice + ", and on the others",
            )
            continue
        yield problem(
            "nodes.connection-outside",
            f"{node.named} is connected with {where}; neither end is on one of the ports {_list(ports)}: plaintext",
            advice,
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


def _list(ports: Sequence[int]) -> str:
    return ", ".join(map(str, ports)) or "(none)"
