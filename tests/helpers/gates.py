"""What several tests of the gate do to it, and see of it."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import wait_for
from lab.messages import MAGIC
from mcencrypt.kernel.fence import Fence, Standing
from tests.helpers.nodes import PORTS, Node
from tests.helpers.pairs import EncryptedPair, event_count

needs_nft = pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)")
MARKERS = [b"INVOICE-4711", b"version\0", b"verack\0", b"getdata\0", MAGIC]


PATCHES = {
    "none": "def install(self): raise NoFenceError('this kernel cannot have the fence')\nFence.install = install\n",
    "standing": "nftables.TABLE_F_OWNER = nftables.TABLE_F_PERSIST = 0\n",
}


def standing(node: Node) -> Standing:
    with node.host.enter():
        fence = Fence(PORTS)
        try:
            return fence.look()
        finally:
            fence.close()


def needs_owned_fence(pair: EncryptedPair) -> None:
    if pair.a.status()["gate"]["fence"] != "owned":
        pytest.skip("the kernel has no owned tables that persist (Linux 6.9)")


def items_flow(b: object) -> None:
    """Wait until an item has come that was published after now."""
    items = event_count(b, "item")
    wait_for(lambda: event_count(b, "item") > items + 2, "items")


def flush_tables(node: Node) -> None:
    for command in ("iptables", "ip6tables"):
        for table in ("raw", "mangle", "nat", "filter", "security"):
            node.host.run([command, "-w", "-t", table, "-F"])
            node.host.run([command, "-w", "-t", table, "-X"], check=False)  # rules may be back already


def restore_a_file(node: Node) -> None:
    """What netfilter-persistent and iptables.service do when they start."""
    for command in ("iptables-restore", "ip6tables-restore"):
        text = "*filter\n:INPUT ACCEPT [0:0]\nCOMMIT\n*raw\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n*mangle\nCOMMIT\n"
        node.host.run([command, "-w"], stdin=text)


def flush_ruleset(node: Node) -> None:
    """The first line of Debian's /etc/nftables.conf."""
    node.host.run(["nft", "flush", "ruleset"])


def delete_our_rules(node: Node) -> None:
    """Somebody who means us."""
    node.host.run(["iptables", "-w", "-t", "raw", "-D", "OUTPUT", 1])
    node.host.run(["iptables", "-w", "-t", "mangle", "-D", "INPUT", 1])


def accept_first(node: Node) -> None:
    """A rule in front of ours that lets everything through."""
    for table, chain in (("raw", "OUTPUT"), ("mangle", "INPUT")):
        node.host.run(["iptables", "-w", "-t", table, "-I", chain, 1, "-p", "tcp", "-j", "ACCEPT"])


@contextlib.contextmanager
def without_rules(node: Node) -> Iterator[None]:
    """The chains stay, and lead nowhere: rules that look like ours to nobody, put in faster than they are replaced."""
    stop = node.directory / "stop"
    stop.unlink(missing_ok=True)
    script = f"while [ ! -e {stop} ]; do iptables -w -t raw -F OUTPUT; iptables -w -t mangle -F INPUT; done"
    flusher = node.host.spawn(["sh", "-c", script])
    try:
        yield
    finally:
        stop.touch()
        flusher.wait(10)


def fence_drops(node: Node, again: Callable[[], object] = lambda: None) -> None:
    """Wait until the fence has dropped something that the node wanted to send.

    `again` is done meanwhile, again and again.
    """

    def dropped() -> int:
        with node.host.enter():
            fence = Fence(PORTS)
            try:
                return fence.dropped()
            finally:
                fence.close()

    before = dropped()
    wait_for(lambda: again() or dropped() > before + 2, "packets at the fence")


@contextlib.contextmanager
def lesser_kernel(directory: Path, pair: EncryptedPair, fence: str) -> Iterator[None]:
    """The daemon of a as it is on a kernel that can do less."""
    directory.joinpath("sitecustomize.py").write_text(
        "from mcencrypt.kernel import nftables\nfrom mcencrypt.kernel.fence import Fence, NoFenceError\n"
        + PATCHES[fence]
    )
    before = dict(pair.a._env)
    pair.a.kill()
    pair.a.mcencrypt("off")
    pair.a._env["PYTHONPATH"] = f"{directory}:{before['PYTHONPATH']}"
    try:
        pair.a.start()
        pair.a.mcencrypt("on")
        assert pair.a.status()["gate"]["fence"] == fence
        yield
        pair.a.kill()
    finally:
        pair.a._env = before
    pair.a.mcencrypt("off")
    pair.a.start()
    pair.a.mcencrypt("on")
