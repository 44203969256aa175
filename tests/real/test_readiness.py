"""The sign for programs that share the namespace: there when the rules are, and nobody but their master can make it."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Host, Lab, Process
from mcencrypt.store.keys import create_network_key
from tests.helpers.nodes import Node, needs_lab

pytestmark = needs_lab

JOIN = Path(__file__).parents[2] / "docker/join"
#: What a container has: a /sys that shows its own network.
INSIDE = ("unshare", "--mount", "sh", "-c", 'mount -t sysfs sys /sys && exec "$0" "$@"')

#: All that somebody without rights can do to look like a daemon. Says what worked.
FORGE = """
import os, socket, sys
sign = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
sign.bind("\\0mcencrypt/ready")
os.setgroups([]); os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
try:
    open("/sys/class/net/lo/ifalias", "w").write("mcencrypt/ready")
    print("written", flush=True)
except OSError as error:
    print("refused", error.strerror, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    create_network_key(tmp_path / "network.key")
    with Lab() as lab:
        yield Node(lab.host("a"), tmp_path / "network.key")


def join(host: Host) -> Process:
    """A node's container that starts, in the namespace."""
    return host.spawn([*INSIDE, "/bin/sh", JOIN, "echo", "started"])


def shown(node: Node) -> str:
    """The sign, as a program in the namespace sees it."""
    return node.host.run([*INSIDE, "cat", "/sys/class/net/lo/ifalias"]).stdout.strip()


def test_a_node_waits_for_the_rules_whatever_others_pretend(node: Node) -> None:
    with node.host.enter():
        words = [*INSIDE, sys.executable, "-c", FORGE]
        forger = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    with forger:
        assert forger.stdout is not None and forger.stdout.readline() == "refused Permission denied\n"
        waiting = join(node.host)
        waiting.wait_for("waiting for mcencrypt")
        assert shown(node) == "" and "started" not in waiting.output()
        node.start()
        waiting.wait_for("started")
    assert node.rules() and shown(node) == "mcencrypt/ready"


def test_the_sign_goes_with_an_orderly_end_and_comes_again(node: Node) -> None:
    node.start()
    node.restart(15)
    assert shown(node) == "mcencrypt/ready"
    node.kill(15)
    assert shown(node) == ""
    # after a crash the rules are still there
    node.start()
    node.kill(9)
    assert node.rules() and shown(node) == "mcencrypt/ready"


def test_the_name_that_somebody_gave_stays(node: Node) -> None:
    node.host.ip("link", "set", "lo", "alias", "the administrator's own")
    node.start()
    assert shown(node) == "the administrator's own"
    node.kill(15)
    assert shown(node) == "the administrator's own"
