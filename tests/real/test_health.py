"""`mcencrypt status --check`: what a container's healthcheck and a supervisor ask."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

from lab import Lab, wait_for
from mcencrypt.store.keys import create_network_key
from tests.helpers.nodes import Node, needs_lab

pytestmark = needs_lab

METRICS = "127.0.0.1:9464"


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A host with a daemon, whose iptables commands fail while `tmp_path / "broken"` exists."""
    for tables in ("iptables", "ip6tables"):
        for verb in ("save", "restore"):
            command = tmp_path / f"{tables}-{verb}"
            command.write_text(
                f'#!/bin/sh\n[ -e "{tmp_path}/broken" ] && exit 1\nexec {shutil.which(command.name)} "$@"\n'
            )
            command.chmod(0o755)
    create_network_key(tmp_path / "network.key")
    with Lab() as lab:
        made = Node(lab.host("a"), tmp_path / "network.key", metrics_listen=METRICS)
        made._env["MCENCRYPT_IPTABLES"] = str(tmp_path / "iptables")
        made.start()
        yield made


def check(node: Node, status: int, text: str) -> None:
    done = node.mcencrypt("status", "--check", check=False)
    said = done.stdout if status == 0 else done.stderr
    assert (done.returncode, text in said, said.count("\n")) == (status, True, 1), (done, text)


def test_on_and_off_are_healthy_and_no_daemon_is_not(node: Node) -> None:
    check(node, 0, "mcencrypt is on (require)")
    node.mcencrypt("off")
    check(node, 0, "mcencrypt is off")
    node.mcencrypt("on")
    check(node, 0, "mcencrypt is on")
    node.kill()
    check(node, 1, "no daemon answers")


def test_daemon_that_hangs_is_not_healthy(node: Node) -> None:
    os.kill(node.pid, signal.SIGSTOP)
    try:
        check(node, 1, "did not answer")
    finally:
        os.kill(node.pid, signal.SIGCONT)
    wait_for(lambda: node.status()["gate"]["rules_in_place"], "the daemon to look at its rules again")
    check(node, 0, "mcencrypt is on")


def test_status_for_programs_is_what_the_schema_says(node: Node) -> None:
    schema = json.loads((Path(__file__).parents[2] / "docs/status.schema.json").read_text())
    for switched in ("on", "off"):
        node.mcencrypt(switched)
        status = json.loads(node.mcencrypt("status", "--json").stdout)
        Draft202012Validator(schema).validate(status)
        assert set(status) == set(schema["properties"])


def test_rules_that_cannot_be_watched_are_not_healthy(node: Node, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.touch()
    # within 10 s, as the guard's own tests have it
    wait_for(lambda: node.status()["gate"]["trouble"], "the daemon to notice that it cannot look")
    check(node, 1, "cannot be watched")
    assert node.status()["rules_lost"] == 0
    # so do the others who are asked
    wait_for(lambda: rules_in_place(node) == 0, "the metrics")
    found = json.loads(node.mcencrypt("doctor", "--json", check=False).stdout)["findings"]
    assert [one["severity"] for one in found if one["id"] == "fence.trouble"] == ["problem"]
    broken.unlink()
    wait_for(lambda: not node.status()["gate"]["trouble"], "the daemon to see them again")
    check(node, 0, "mcencrypt is on")
    wait_for(lambda: rules_in_place(node) == 1, "the metrics")


def rules_in_place(node: Node) -> float:
    """As the metrics have it."""
    with node.host.enter(), socket.create_connection(("127.0.0.1", 9464)) as connection:
        connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        text = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    (value,) = re.findall(rb"^mcencrypt_rules_in_place (\S+)", text, re.M)
    return float(value)


def test_rules_that_cannot_be_put_back_are_not_healthy(node: Node, tmp_path: Path) -> None:
    restore = tmp_path / "iptables-restore"
    restore.write_text("#!/bin/sh\nexit 1\n")
    node.host.run(["iptables", "-w", "-t", "raw", "-F"])
    wait_for(lambda: node.status()["gate"]["trouble"], "the daemon to fail at putting them back")
    check(node, 1, "cannot be watched")
    assert node.status()["rules_seen"] is None
    assert not node.status()["gate"]["rules_in_place"]
