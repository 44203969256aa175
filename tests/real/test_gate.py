"""The gate while nodes talk: rules that others take out, the fence behind them, and what they cost."""

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

from lab import PATIENCE, Recording, direct_pair, start, wait_for
from lab.messages import MAGIC
from lab.packets import SYN
from mcencrypt.kernel.fence import DEFAULT_MARK, Fence, Standing
from tests.helpers import firewalls
from tests.helpers.nodes import PORT, PORTS, Node, needs_lab
from tests.helpers.pairs import EncryptedPair, await_again, encrypted, event_count, talking
from tests.helpers.wire import plaintext_segments

pytestmark = needs_lab
needs_nft = pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)")

MARKERS = [b"INVOICE-4711", b"version\0", b"verack\0", b"getdata\0", MAGIC]


@pytest.fixture(scope="module")
def pair() -> Iterator[EncryptedPair]:
    with direct_pair() as net, encrypted(net) as made:
        yield made


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


# -- rules flushed by anybody: nothing leaks, nothing is lost


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


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", firewalls.PROGRAMS)
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
    running = start(pair.a, pair.b, PORT, endless=True)
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


def fence_drops(node: Node, again: Callable[[], None] = lambda: None) -> None:
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


# -- processes that come and go


@needs_nft
def test_the_fence_outlives_a_daemon_that_is_killed_and_belongs_to_the_next(pair: EncryptedPair) -> None:
    needs_owned_fence(pair)
    with talking(pair) as (a, b), pair.wire() as wire:
        ready = event_count(a, "ready")
        pair.a.kill()
        flush_tables(pair.a)
        assert standing(pair.a) is Standing.WHOLE
        fence_drops(pair.a)
        pair.a.start()
        assert pair.a.status()["gate"]["fence"] == "owned"
        await_again(pair, a, ready)
        pair.a.host.run(["nft", "flush", "ruleset"])
        items_flow(b)
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)


def test_off_takes_all_of_it_away_with_a_daemon_and_without(pair: EncryptedPair) -> None:
    for kill in (False, True):
        pair.a.mcencrypt("on")
        assert standing(pair.a) is Standing.WHOLE
        if kill:
            pair.a.kill()
        pair.a.mcencrypt("off")
        assert standing(pair.a) is Standing.BROKEN
        if shutil.which("nft"):
            assert "mcencrypt" not in pair.a.host.run(["nft", "list", "ruleset"]).stdout.lower()
    pair.a.start()
    assert pair.a.status()["gate"]["fence"] == "off"
    pair.a.mcencrypt("on")


#: Dials so often, and sends on each connection again and again; never dials anew. Says when all are gone.
MANY = """
import select, socket, sys, time
talking = {}
for _ in range(int(sys.argv[3])):
    one = socket.create_connection((sys.argv[1], int(sys.argv[2])))
    talking[one.fileno()] = one
poll = select.poll()
for one in talking.values():
    poll.register(one, select.POLLIN)
    one.sendall(b"INVOICE-4711")
print("connected", flush=True)
while talking:
    time.sleep(0.1)  # so that what is recorded can be read
    for fd, _ in poll.poll():
        try:
            if not talking[fd].recv(1000):
                raise ConnectionError
            talking[fd].sendall(b"INVOICE-4711" * 10)
        except ConnectionError:
            poll.unregister(fd)
            talking.pop(fd).close()
print("all gone", flush=True)
"""


def much_is_sent_again(node: Node) -> None:
    """Wait until a hundred packets of sockets have come to rules behind which nobody is."""

    def came() -> int:
        return node.host.rule_packets("raw", "mcencrypt: egress to a P2P port")

    before = came()
    wait_for(lambda: came() > before + 100, "packets at the rules")


def ends_before_the_ports_open(pair: EncryptedPair, who: str) -> None:
    """A hundred and twenty connections of a, whose daemon dies; then who takes rules away ends them first."""
    echo = pair.b.python("lab.apps", "echo", PORT)
    echo.wait_for('"listening"')
    client = pair.a.spawn(["python3", "-c", MANY, pair.b.v4, PORT, 120])
    client.wait_for("connected")
    wait_for(lambda: len(pair.b.connections("encrypted")) == 120, "all to be encrypted")
    try:
        with pair.wire() as wire:
            received = pair.b.status()["totals"]["bytes_in"]
            wait_for(lambda: pair.b.status()["totals"]["bytes_in"] > received + 100_000, "them to talk")
            if who == "the next daemon":
                pair.a.mcencrypt("off")
                assert len(pair.a.connections("encrypted")) == 120, "they go on until they end"
                pair.a.kill()
                much_is_sent_again(pair.a)
                pair.a.start()
                assert not pair.a.status()["enabled"]
            else:
                pair.a.kill()
                much_is_sent_again(pair.a)
                pair.a.mcencrypt("off")
            assert not pair.a.rules() and standing(pair.a) is Standing.BROKEN, "the ports are open"
            client.wait_for("all gone")
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
        assert sum(bool(segment.payload) for segment in wire.segments(PORT)) > 120, "there was something to be seen"
    finally:
        client.stop()
        echo.stop()
        if not pair.a.answers():
            pair.a.start()
        pair.a.mcencrypt("on")


WHO = ["the next daemon", "off without a daemon"]


@pytest.mark.parametrize("who", WHO)
def test_what_a_dead_daemon_had_encrypted_ends_before_the_ports_open(pair: EncryptedPair, who: str) -> None:
    ends_before_the_ports_open(pair, who)


@pytest.mark.parametrize("who", WHO)
def test_that_is_so_without_a_fence_too(pair: EncryptedPair, tmp_path: Path, who: str) -> None:
    """There it showed: rules that went first let out what the sockets had to send again."""
    with lesser_kernel(tmp_path, pair, "none"):
        ends_before_the_ports_open(pair, who)


def test_another_bit(pair: EncryptedPair) -> None:
    pair.a.rewrite(fence_mark=0x4000000)
    try:
        pair.a.restart()
        with talking(pair) as (_, b):
            items_flow(b)
        assert any("--set-xmark 0x4000000/0x4000000" in rule for rule in pair.a.rules())
        assert standing(pair.a) is Standing.BROKEN, "it is not the one with the usual bit"
    finally:
        pair.a.rewrite(fence_mark=DEFAULT_MARK)
        pair.a.restart()


#: Dials again and again: a question each time, and its answer.
CHURN = """
import socket, sys, time
while True:
    time.sleep(0.01)  # leave something of the machine to the daemons
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=2) as one:
            one.settimeout(2)
            one.sendall(b"INVOICE-4711")
            one.recv(100)
            one.sendall(b"INVOICE-4711" * 10)
    except OSError:
        pass
"""


def test_what_began_encrypted_does_not_go_on_in_plaintext(pair: EncryptedPair) -> None:
    """Ports are given up, and encryption is switched off, while connections begin all the time."""
    echo = pair.b.python("lab.apps", "echo", PORTS[1])
    echo.wait_for('"listening"')
    clients = [pair.a.spawn(["python3", "-c", CHURN, pair.b.v4, PORTS[1]]) for _ in range(3)]
    try:
        with pair.wire() as wire:
            for _ in range(2):
                wait_for(lambda: pair.a.connections("encrypted"), "connections")
                for node in (pair.a, pair.b):
                    node.rewrite(ports=[PORT])
                    node.mcencrypt("reload")
                for node in (pair.a, pair.b):
                    node.rewrite(ports=list(PORTS))
                    node.mcencrypt("reload")
                wait_for(lambda: pair.a.connections("encrypted"), "connections")
                for node in (pair.a, pair.b):
                    node.mcencrypt("off")
                wait_for(lambda: not pair.a.rules() and not pair.b.rules(), "the rules to go")
                for node in (pair.a, pair.b):
                    node.mcencrypt("on")
    finally:
        for client in clients:
            client.stop()
        echo.stop()
        for node in (pair.a, pair.b):
            node.rewrite(ports=list(PORTS))
            node.mcencrypt("reload")
            node.mcencrypt("on")
    encrypted_now: dict[tuple[str, int], bool] = {}
    broken = 0
    for one in wire.segments(PORTS[1]):
        if one.destination_port == PORTS[1]:
            ends = (one.source, one.source_port)
            if one.flags & SYN:
                encrypted_now[ends] = one.payload.startswith(b"mcen")
            elif MARKERS[0] in one.payload:
                broken += encrypted_now.get(ends, False)
    assert set(encrypted_now.values()) == {True, False}, "both kinds were there"
    assert not broken


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


PATCHES = {
    "none": "def install(self): raise NoFenceError('this kernel cannot have the fence')\nFence.install = install\n",
    "standing": "nftables.TABLE_F_OWNER = nftables.TABLE_F_PERSIST = 0\n",
}


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
