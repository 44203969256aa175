"""The daemon's try of queue and kernel at its start: however it ends, nothing of it stays."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import Lab, wait_for
from mcencrypt.store.keys import create_network_key
from tests.helpers.nodes import Node, needs_lab

pytestmark = needs_lab


@pytest.fixture(params=["iptables-nft", "iptables-legacy"])
def node(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Node]:
    """A host whose iptables-restore, once it is done, kills whoever called it, while `tmp_path / "kill"` exists."""
    backend = request.param
    if shutil.which(f"{backend}-restore") is None:
        pytest.skip(f"needs {backend}")
    for verb, then in (("save", ""), ("restore", f'[ -e "{tmp_path}/kill" ] && kill -KILL $PPID; ')):
        command = tmp_path / f"iptables-{verb}"
        command.write_text(f'#!/bin/sh\n{backend}-{verb} "$@"; status=$?\n{then}exit $status\n')
        command.chmod(0o755)
        six = tmp_path / f"ip6tables-{verb}"
        six.write_text(f'#!/bin/sh\nexec ip6{backend.removeprefix("ip")}-{verb} "$@"\n')
        six.chmod(0o755)
    create_network_key(tmp_path / "network.key")
    with Lab() as lab:
        made = Node(lab.host("a"), tmp_path / "network.key")
        made._env["MCENCRYPT_IPTABLES"] = str(tmp_path / "iptables")
        yield made


def raw(node: Node) -> list[str]:
    """The rules of the table raw, whoever holds them."""
    shown = [node.host.run([f"iptables-{kind}-save", "-t", "raw"]).stdout for kind in ("nft", "legacy")]
    return [line for text in shown for line in text.splitlines() if line.startswith("-A")]


def die_while_trying(node: Node, tmp_path: Path) -> None:
    (tmp_path / "kill").touch()
    process = node.host.spawn(node._words("daemon"), log=node.log_file, env=node._env)
    wait_for(lambda: process.exit_code is not None, "the daemon to be killed", 20)
    assert process.exit_code == -9
    (tmp_path / "kill").unlink()


@pytest.mark.parametrize("times", [1, 2])
def test_a_daemon_that_was_killed_while_it_tried_leaves_nothing_to_the_next(
    node: Node, tmp_path: Path, times: int
) -> None:
    for _ in range(times):
        die_while_trying(node, tmp_path)
    assert raw(node), "what it was killed for"
    node.start()
    assert not [line for line in raw(node) if "probe" in line.lower()]
    node.mcencrypt("off")
    assert not raw(node)


def test_off_takes_it_away_where_no_daemon_runs(node: Node, tmp_path: Path) -> None:
    die_while_trying(node, tmp_path)
    assert raw(node)
    node.mcencrypt("off")
    assert not raw(node)
