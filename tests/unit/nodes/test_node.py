"""What a multichaind's command line and files say of its ports."""

from __future__ import annotations

import pytest

from mcencrypt.nodes.automatic import follow, ports_of
from mcencrypt.nodes.node import Node as Read
from mcencrypt.nodes.node import is_node, read_node
from mcencrypt.nodes.processes import read_process
from tests.helpers.recorded_nodes import PARAMS, PID, Node

BASE = f"/proc/{PID}/root/root/.multichain/chain1"


def read(node: Node) -> Read:
    process = read_process(node.machine, PID)
    assert process is not None and is_node(process)
    return read_node(node.machine, process)


@pytest.mark.parametrize(
    ("words", "p2p", "seeds"),
    [
        (("chain1",), {7331}, set()),
        (("chain1", "-port=7447"), {7447}, set()),
        (("-daemon", "chain1", "-port=7447", "-port=1"), {7447}, set()),
        (("chain1", "-bind=[::]:9000"), {9000}, set()),
        (("chain1", "-bind=0.0.0.0:9000", "-whitebind=10.0.0.1:9001"), {9000, 9001}, set()),
        (("chain1", "-bind=10.0.0.1", "-bind=2001:db8::1"), {7331}, set()),
        (("chain1", "-addnode=10.0.0.2:30447", "-connect=[2001:db8::2]:30448"), {7331}, {30447, 30448}),
        (("chain1", "--seednode=seed.example:30447", "-addnode=seed.example"), {7331}, {30447}),
        (("chain1@seed.example:30447",), {7331}, {30447}),
        (("chain1@[2001:db8::1]:30447", "-port=7447"), {7447}, {30447}),
        (("chain1@seed.example",), {7331}, set()),
        (("chain1", "-port=x", "-bind=[::]:0", "-addnode=h:70000"), {7331}, set()),
    ],
)
def test_ports_of_a_command_line(words: tuple[str, ...], p2p: set[int], seeds: set[int]) -> None:
    node = Node()
    node.machine.files[f"/proc/{PID}/cmdline"] = "".join(f"{word}\0" for word in ("/usr/bin/multichaind", *words))
    found = read(node)
    assert (found.chain, found.p2p, set(found.seeds), found.rpc) == ("chain1", p2p, seeds, {7330})


@pytest.mark.parametrize(
    ("conf", "p2p", "rpc", "seeds"),
    [
        ("port=7447\n", {7447}, {7330}, set()),
        ("bind=[::]:9000\nbind=0.0.0.0:9001\n", {9000, 9001}, {7330}, set()),
        ("rpcport=8000\n", {7331}, {8000}, set()),
        ("rpcbind=0.0.0.0:8000\nseednode=a:1000\naddnode=b:1001\n", {7331}, {8000}, {1000, 1001}),
        ("port=7330\n", set(), {7330}, set()),
    ],
)
def test_ports_of_its_files(conf: str, p2p: set[int], rpc: set[int], seeds: set[int]) -> None:
    node = Node()
    node.machine.files[f"{BASE}/multichain.conf"] = conf
    found = read(node)
    assert (found.p2p, found.rpc, set(found.seeds)) == (p2p, rpc, seeds)


def test_what_ports_auto_takes_is_never_the_api() -> None:
    assert ports_of(read(Node())) == (7331,)
    assert ports_of(read(Node("-port=7447", "-addnode=h:30447", "-addnode=h:7330"))) == (7447, 30447)
    unknown = Node()
    del unknown.machine.files[f"{BASE}/params.dat"]
    assert ports_of(read(unknown)) == (), "of two ports one is the API's, and nothing says which"
    unknown.machine.files[f"/proc/{PID}/cmdline"] += "-rpcport=7330\0"
    assert ports_of(read(unknown)) == (7331,)


def test_ports_follow_a_node_and_stay_while_it_is_down() -> None:
    first = follow([read(Node())], {"other": (8571,)})
    assert first == {"other": (8571,), "chain1": (7331,)}
    assert follow([], first) == first
    assert follow([read(Node("-port=7447"))], first) == {"other": (8571,), "chain1": (7447,)}
    assert PARAMS
