"""The gate while nodes talk: rules that others take out, the fence behind them, and what they cost."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pytest

from lab import direct_pair, start, wait_for
from mcencrypt.kernel.fence import DEFAULT_MARK, Standing
from tests.helpers import firewalls
from tests.helpers.gates import (
    MARKERS,
    accept_first,
    delete_our_rules,
    fence_drops,
    flush_ruleset,
    flush_tables,
    items_flow,
    needs_nft,
    needs_owned_fence,
    restore_a_file,
    standing,
    without_rules,
)
from tests.helpers.nodes import FULL, PACING, PORT, PORTS, Node, needs_lab
from tests.helpers.pairs import EncryptedPair, encrypted, event_count, talking
from tests.helpers.wire import plaintext_segments

pytestmark = needs_lab


@pytest.fixture(scope="module")
def pair() -> Iterator[EncryptedPair]:
    with direct_pair() as net, encrypted(net) as made:
        yield made


# -- rules flushed by anybody: nothing leaks, nothing is lost


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flush", [flush_tables, restore_a_file, pytest.param(flush_ruleset, marks=needs_nft)])
def test_a_flush_costs_a_pause_and_no_connection(
    pair: EncryptedPair, flush: Callable[[Node], None], version: int
) -> None:
    needs_owned_fence(pair)
    with talking(pair, version) as (a, b):
        counts = [event_count(process, "ready") for process in (a, b)]
        lost = pair.a.status()["rules_lost"]
        rules = pair.a.rules()
        with pair.wire() as wire:
            for node in (pair.a, pair.b):
                flush(node)
            wait_for(lambda: pair.a.status()["rules_lost"] > lost, "the daemon to notice")
            wait_for(lambda: pair.a.rules() == rules, "the rules to be back")
            items_flow(b)
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
        assert [event_count(process, "ready") for process in (a, b)] == counts
        assert not event_count(a, "reset") + event_count(b, "reset") + event_count(a, "closed")
    assert "the fence held" in pair.a.log()
    assert standing(pair.a) is Standing.WHOLE


#: A program handles both families each time, and rules and fence of both must be back: who talks by which, pairs show.
TALKS = [
    (name, version)
    for number, name in enumerate(firewalls.PROGRAMS)
    for version in (4, 6)
    if FULL or version == (4, 6)[number % 2]
]


@pytest.mark.parametrize(("name", "version"), TALKS)
def test_other_programs_start_load_and_end_their_rules(pair: EncryptedPair, name: str, version: int) -> None:
    """Whatever they flush: nothing leaks, and no connection is lost."""
    needs_owned_fence(pair)
    program = firewalls.PROGRAMS[name]
    if lacking := firewalls.missing(program):
        pytest.skip(f"needs {lacking}")
    with talking(pair, version) as (a, b):
        counts = [event_count(process, "ready") for process in (a, b)]
        lost = pair.a.status()["rules_lost"]
        rules = pair.a.rules()
        with pair.wire() as wire:
            running = firewalls.begin(pair.a, program)
            assert running.wait() == 0, running.output()[-3000:]
            wait_for(lambda: pair.a.rules() == rules, "the rules to be back")
            items_flow(b)
        print(f"{name} removed our rules {pair.a.status()['rules_lost'] - lost} times")
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
        assert [event_count(process, "ready") for process in (a, b)] == counts
        assert not event_count(a, "reset") + event_count(b, "reset") + event_count(a, "closed")


@pytest.mark.parametrize("attack", [delete_our_rules, accept_first])
def test_who_means_us_gets_nothing_out_either(pair: EncryptedPair, attack: Callable[[Node], None]) -> None:
    with talking(pair) as (a, b):
        ready = event_count(a, "ready")
        rules = pair.a.rules()
        with pair.wire() as wire:
            attack(pair.a)
            attack(pair.b)
            wait_for(lambda: pair.a.rules() == rules and pair.b.rules() == rules, "the rules to be back")
            items_flow(b)
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
        assert event_count(a, "ready") == ready
    for node in (pair.a, pair.b):
        flush_tables(node)
        wait_for(lambda node=node: node.rules() == rules, "the rules to be back")  # type: ignore[misc]


def test_rules_flushed_under_a_stream_that_does_not_end(pair: EncryptedPair) -> None:
    needs_owned_fence(pair)
    running = start(pair.a, pair.b, PORT, endless=True, pacing=PACING)
    wait_for(lambda: any(one["bytes_out"] > 1e6 for one in pair.a.connections("encrypted")), "a stream")
    rules = pair.a.rules()
    for _ in range(3):
        lost = pair.a.status()["rules_lost"]
        pair.a.host.run(["iptables", "-w", "-t", "raw", "-F"])
        wait_for(lambda lost=lost: pair.a.status()["rules_lost"] > lost, "the daemon to notice")  # type: ignore[misc]
        wait_for(lambda: pair.a.rules() == rules, "the rules to be back")
    running.end()
    assert running.result().differences == []


def test_flushes_one_after_the_other_are_all_noticed(pair: EncryptedPair) -> None:
    """Those during a look as well: that was found five seconds later."""
    with talking(pair) as (_, b), pair.wire() as wire:
        rules = pair.a.rules()
        for _ in range(20):
            pair.a.host.run(["iptables", "-w", "-t", "raw", "-F"])
        flushed = time.monotonic()
        wait_for(lambda: pair.a.rules() == rules, "the rules to be back", 4)
        print(f"back {time.monotonic() - flushed:.2f} s after the last of twenty flushes")
        items_flow(b)
    assert plaintext_segments(wire, PORT) == 0


# -- the bit


def test_a_socket_that_inherits_the_bit_does_not_get_out(pair: EncryptedPair) -> None:
    """tcp_fwmark_accept: an accepted socket has the mark of its SYN, which others may set as well."""
    needs_owned_fence(pair)
    node = pair.b
    node.host.sysctl("net.ipv4.tcp_fwmark_accept", 1)
    node.host.run(
        ["iptables", "-t", "mangle", "-A", "PREROUTING", "-p", "tcp", "-j", "MARK", "--set-mark", DEFAULT_MARK]
    )
    try:
        hold_open(pair, node)
    finally:
        node.host.sysctl("net.ipv4.tcp_fwmark_accept", 0)
        node.host.run(["iptables", "-t", "mangle", "-F", "PREROUTING"])


def test_a_mark_that_is_saved_with_connections_and_restored_does_not_get_out(pair: EncryptedPair) -> None:
    """CONNMARK, as routers for several uplinks have it; the bit is restored where the rules are gone."""
    needs_owned_fence(pair)
    node = pair.b
    try:
        for table, chain, what in (
            ("mangle", "PREROUTING", "--restore-mark"), ("mangle", "OUTPUT", "--restore-mark"),
            ("mangle", "POSTROUTING", "--save-mark"), ("mangle", "FORWARD", "--save-mark"),
        ):  # fmt: skip
            node.host.run(["iptables", "-t", table, "-A", chain, "-j", "CONNMARK", what])
        node.host.run(["iptables", "-t", "mangle", "-A", "OUTPUT", "-j", "CONNMARK", "--set-mark", DEFAULT_MARK])
        hold_open(pair, node)
    finally:
        node.host.run(["iptables", "-t", "mangle", "-F", "PREROUTING"])
        for chain in ("OUTPUT", "POSTROUTING", "FORWARD"):
            node.host.run(["iptables", "-t", "mangle", "-F", chain])


def hold_open(pair: EncryptedPair, node: Node) -> None:
    """Nodes talk; then `node` has no rules for a while, because iptables is kept from putting them back."""
    with talking(pair) as (a, b):
        items_flow(b)
        ready = event_count(a, "ready")
        with pair.wire() as wire, without_rules(node):
            fence_drops(node)
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
        items_flow(b)
        assert event_count(a, "ready") == ready


def test_a_process_that_sets_the_bit_itself_does_not_get_out(pair: EncryptedPair) -> None:
    """SO_MARK needs CAP_NET_RAW only on newer kernels, which containers have."""
    needs_owned_fence(pair)
    port = PORTS[1]
    program = (
        "import socket, sys\n"
        f"s = socket.create_connection(('{pair.b.v4}', {port})); s.setsockopt(socket.SOL_SOCKET, 36, {DEFAULT_MARK})\n"
        "print('connected', flush=True)\n"
        "while True:\n"
        "    s.sendall(b'INVOICE-4711' * 10); s.recv(1000)\n"
    )
    echo = pair.b.python("lab.apps", "echo", port)
    echo.wait_for('"listening"')
    unable = ["setpriv", "--inh-caps=-net_admin", "--bounding-set=-net_admin"]
    process = pair.a.spawn([*unable, "python3", "-c", program])
    process.wait_for("connected")
    with pair.wire() as wire, without_rules(pair.a):
        fence_drops(pair.a)
    assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
    assert process.exit_code is None, "the connection was lost"
    process.stop()
    echo.stop()


def test_nobodys_routing_sees_the_bit(pair: EncryptedPair) -> None:
    """`ip rule fwmark`: a connection whose packets had the bit when they were routed ended at once."""
    for node in (pair.a, pair.b):
        for family in ("-4", "-6"):
            node.host.ip(family, "rule", "add", "fwmark", f"{DEFAULT_MARK:#x}/{DEFAULT_MARK:#x}", "prohibit")
    try:
        with talking(pair) as (a, b):
            items_flow(b)
            assert not event_count(a, "reset")
    finally:
        for node in (pair.a, pair.b):
            for family in ("-4", "-6"):
                node.host.ip(family, "rule", "delete", "fwmark", f"{DEFAULT_MARK:#x}/{DEFAULT_MARK:#x}")
