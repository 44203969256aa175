"""A node on a port that no rule covers, and `ports = "auto"`, on the real kernel."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, wait_for
from lab.process import Process
from mcencrypt.store.keys import create_network_key
from tests.helpers.nodes import Node, needs_lab

pytestmark = needs_lab


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    create_network_key(tmp_path / "network.key")
    with Lab() as made:
        yield made


def multichaind(node: Node, directory: Path, port: int, *words: str) -> Process:
    """A program of multichaind's name, which listens on a port."""
    program = directory / "multichaind"
    program.write_text(f"#!{sys.executable}\nimport runpy, sys\nsys.argv[1:] = ['echo', sys.argv[2][6:]]\n"
                       "runpy.run_module('lab.apps', run_name='__main__')\n")  # fmt: skip
    program.chmod(0o755)
    started = node.spawn([program, "chain1", f"-port={port}", *words], env=node._env)
    node.wait_listening(port)
    return started


def test_a_node_on_another_port_is_named_and_is_not_healthy(lab: Lab, tmp_path: Path) -> None:
    node = Node(lab.host("a"), tmp_path / "network.key")
    node.start()
    node.mcencrypt("status", "--check")
    program = multichaind(node, tmp_path, 9876)
    wait_for(lambda: node.status()["uncovered"], "the daemon to look at who listens")
    [one] = node.status()["uncovered"]
    assert one["owner"] == f"multichaind chain1 (pid {program.pid})" and one["port"] == 9876
    done = node.mcencrypt("status", "--check", check=False)
    assert done.returncode == 1 and "listens on port 9876, which is not covered" in done.stderr
    node.rewrite(ports=[7331, 9876])
    node.mcencrypt("reload")
    node.mcencrypt("status", "--check")
    program.stop()


@pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed")
def test_a_sidecar_that_sees_no_process_of_the_node(lab: Lab, tmp_path: Path) -> None:
    """As in a container: the daemon has the node's network, and processes of its own."""
    node = Node(lab.host("a"), tmp_path / "network.key")
    alone = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
    daemon = node.spawn([*alone, *node._words("daemon")], log=node.log_file, env=node._env)
    wait_for(node.answers, "the daemon to answer")
    program = multichaind(node, tmp_path, 9876)
    wait_for(lambda: any(one["sure"] for one in node.status()["uncovered"]), "the daemon to look twice", 60)
    [one] = node.status()["uncovered"]
    assert (one["doing"], one["port"], one["owner"]) == ("listens", 9876, None)
    assert node.mcencrypt("status", "--check", check=False).returncode == 1
    program.stop()
    wait_for(lambda: not node.status()["uncovered"], "the daemon to look again", 60)
    node.mcencrypt("status", "--check")
    daemon.stop()


def test_ports_auto_takes_the_ports_of_the_node(lab: Lab, tmp_path: Path) -> None:
    node = Node(lab.host("a"), tmp_path / "network.key", ports="auto")
    done = node.mcencrypt("daemon", check=False)
    assert done.returncode == 1 and 'ports = "auto": no multichaind' in done.stderr
    program = multichaind(node, tmp_path, 9876, "-addnode=192.0.2.7:30447", "-rpcport=9000")
    node.start()
    assert node.status()["ports"] == [9876, 30447]
    program.stop()
    second = multichaind(node, tmp_path, 9877)
    wait_for(lambda: node.status()["ports"] == [9877], "the ports to follow the node", 60)
    wait_for(lambda: "9877" in node.run(["iptables-save"]).stdout, "the rules to follow")
    second.stop()
    node.restart()
    assert node.status()["ports"] == [9877], "remembered"
    assert os.path.exists(node.state_dir / "ports.json")
