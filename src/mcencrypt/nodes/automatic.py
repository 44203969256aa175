"""``ports = "auto"``: the P2P ports of the nodes that are seen here.

Taken are ports that a node's own command line and files name, those of peers they name included, and those on which it
listens if it can be told which is for the API. **Not** taken are ports of peers that a node has learnt of by itself:
who announces himself at port 443 would have the HTTPS of this whole host refused.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping

from mcencrypt.nodes.node import Node

#: A node that names more names them by mistake.
MOST = 32


def ports_of(node: Node) -> tuple[int, ...]:
    """The ports of one node, those on which it is reached first; () if they cannot be told from its API's."""
    own = node.p2p
    if not own and (node.rpc or node.files_read):
        own = node.listening()
    return tuple(sorted(own - node.rpc) + sorted(set(node.seeds) - own - node.rpc))[:MOST]


def follow(nodes: Collection[Node], known: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """`known` ports by chain, and what these nodes make of it.

    The ports of a chain whose node is not seen stay as they were: it is down, and must not come up in plaintext.
    """
    now = dict(known)
    seen: dict[str, tuple[int, ...]] = {}
    for node in nodes:
        seen[node.chain] = tuple(dict.fromkeys([*seen.get(node.chain, ()), *ports_of(node)]))
    now.update({chain: ports for chain, ports in seen.items() if ports})
    return now
