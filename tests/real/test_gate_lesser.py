"""The gate where less holds it: while another program holds the lock of iptables, and on kernels without a fence."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lab import PATIENCE, Recording, direct_pair, wait_for
from tests.helpers.gates import (
    MARKERS,
    fence_drops,
    flush_ruleset,
    flush_tables,
    items_flow,
    lesser_kernel,
    needs_nft,
    needs_owned_fence,
    restore_a_file,
)
from tests.helpers.nodes import PORT, PORTS, Node, needs_lab
from tests.helpers.pairs import EncryptedPair, await_again, encrypted, event_count, talking
from tests.helpers.wire import plaintext_segments

pytestmark = needs_lab


@pytest.fixture(scope="module")
def pair() -> Iterator[EncryptedPair]:
    with direct_pair() as net, encrypted(net) as made:
        yield made


# -- another program's lock


@pytest.mark.skipif(not shutil.which("iptables-legacy"), reason="needs iptables-legacy")
def test_a_lock_that_another_program_holds_stops_no_packet(pair: EncryptedPair, tmp_path: Path) -> None:
    """iptables-legacy's, for a node of its own, so that nobody else waits for it."""
    lock = tmp_path / "xtables.lock"
    for family in ("ip", "ip6"):
        for verb in ("save", "restore"):
            script = tmp_path / f"{family}tables-{verb}"
            script.write_text(f'#!/bin/sh\nXTABLES_LOCKFILE={lock} exec {family}tables-legacy-{verb} "$@"\n')
            script.chmod(0o755)
    with another_iptables(pair.a, str(tmp_path / "iptables")):
        with talking(pair) as (a, b), lock.open("a") as held:
            ready = event_count(a, "ready")
            fcntl.flock(held, fcntl.LOCK_EX)
            pair.a.rewrite(ports=[*PORTS, 7339])
            reload = pair.a.spawn(pair.a._words("reload"), env=pair.a._env)
            wait_for(lambda: "restore" in waiting_for(lock), "iptables to wait for the lock")
            for _ in range(3):
                items_flow(b)
            assert "restore" in waiting_for(lock) and reload.exit_code is None
            fcntl.flock(held, fcntl.LOCK_UN)
            wait_for(lambda: reload.exit_code == 0, "the reload")
            assert 7339 in pair.a.status()["ports"]
            assert event_count(a, "ready") == ready
        pair.a.rewrite(ports=list(PORTS))


@contextlib.contextmanager
def another_iptables(node: Node, command: str) -> Iterator[None]:
    """Its daemon uses that one, and none of the rules that it puts in there is left."""
    node.kill()
    node.mcencrypt("off")
    node._env["MCENCRYPT_IPTABLES"] = command
    try:
        node.start()
        node.mcencrypt("on")
        yield
        node.mcencrypt("off", "--now")
    finally:
        node.kill()
        del node._env["MCENCRYPT_IPTABLES"]
        node.start()
        node.mcencrypt("on")


@pytest.mark.skipif(not shutil.which("iptables-legacy"), reason="needs iptables-legacy")
def test_a_flush_that_nobody_announces_costs_a_pause_as_well(pair: EncryptedPair) -> None:
    """iptables-legacy: the daemon looks by the clock."""
    needs_owned_fence(pair)
    with another_iptables(pair.a, "iptables-legacy"), talking(pair) as (a, b):
        ready, lost = event_count(a, "ready"), pair.a.status()["rules_lost"]

        def flush() -> None:
            for command in ("iptables-legacy", "ip6tables-legacy"):
                for table in ("raw", "mangle"):
                    pair.a.host.run([command, "-w", "-t", table, "-F"])

        with pair.wire() as wire:
            fence_drops(pair.a, flush)  # the daemon may just be looking
            wait_for(lambda: pair.a.status()["rules_lost"] > lost, "the daemon to notice")
            items_flow(b)
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
        assert event_count(a, "ready") == ready


def waiting_for(lock: Path) -> str:
    """The command lines of processes that have this file open, but ours."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if int(process.name) != os.getpid() and any(
                os.readlink(fd) == str(lock) for fd in (process / "fd").iterdir()
            ):
                found.append((process / "cmdline").read_bytes().replace(b"\0", b" ").decode())
    return "\n".join(found)


# -- where the kernel has no fence, or none that stays


def reset_and_back(pair: EncryptedPair, flush: Callable[[Node], None]) -> Recording:
    """Nodes talk, rules go, and all that was encrypted is reset; returns what was on the wire a second later."""
    with talking(pair) as (a, b):
        ready = event_count(a, "ready")
        lost = pair.a.status()["rules_lost"]
        rules = pair.a.rules()
        with pair.wire() as wire:
            flush(pair.a)
            flushed = time.time()
            wait_for(lambda: pair.a.status()["rules_lost"] > lost, "the daemon to notice")
            wait_for(lambda: pair.a.rules() == rules, "the rules to be back")
            noticed = time.time()
            await_again(pair, a, ready)
            items_flow(b)
        print(f"noticed and repaired after {noticed - flushed:.2f} s")
        assert plaintext_segments(wire, PORT, after=noticed) == 0
        return wire


def test_without_a_fence_rules_that_are_flushed_cost_the_connections(pair: EncryptedPair, tmp_path: Path) -> None:
    with lesser_kernel(tmp_path, pair, "none"):
        assert not any("MARK" in rule for rule in pair.a.rules())
        found = json.loads(pair.a.mcencrypt("doctor", "--json", check=False).stdout)["findings"]
        assert [one["severity"] for one in found if one["id"] == "fence.none"] == ["warning"]
        assert "only watched" in pair.a.mcencrypt("status").stdout
        reset_and_back(pair, flush_tables)
        reset_and_back(pair, restore_a_file)


@needs_nft
def test_a_far_side_that_says_nothing_hears_of_rules_that_were_lost(pair: EncryptedPair, tmp_path: Path) -> None:
    """Its reset must not be sent while there are no rules: the fence would take it."""
    with lesser_kernel(tmp_path, pair, "standing"):
        echo = pair.b.python("lab.apps", "echo", PORT)
        echo.wait_for('"listening"')
        with pair.a.socket() as sock:
            sock.settimeout(PATIENCE)
            sock.connect((pair.b.v4, PORT))
            sock.sendall(b"question")
            assert sock.recv(100) == b"question"
            wait_for(lambda: pair.b.connections("encrypted"), "a connection")
            flush_ruleset(pair.a)
            echo.wait_for('"ConnectionResetError"')
        echo.stop()


@needs_nft
def test_a_fence_that_anybody_can_remove_holds_against_iptables_only(pair: EncryptedPair, tmp_path: Path) -> None:
    with lesser_kernel(tmp_path, pair, "standing"):
        with talking(pair) as (a, b), pair.wire() as wire:
            ready = event_count(a, "ready")
            flush_tables(pair.a)
            items_flow(b)
            assert event_count(a, "ready") == ready
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
        reset_and_back(pair, flush_ruleset)
        assert pair.a.status()["gate"]["fence_lost"] > 0
