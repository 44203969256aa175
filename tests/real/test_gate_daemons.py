"""The gate while daemons come and go, and ports are given up: what began encrypted never goes on in plaintext."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from lab import Process, direct_pair, wait_for
from lab.packets import SYN
from mcencrypt.kernel.fence import DEFAULT_MARK, Standing
from tests.helpers.gates import (
    MARKERS,
    fence_drops,
    flush_tables,
    items_flow,
    lesser_kernel,
    needs_nft,
    needs_owned_fence,
    standing,
)
from tests.helpers.nodes import PORT, PORTS, Node, needs_lab
from tests.helpers.pairs import EncryptedPair, await_again, encrypted, event_count, talking

pytestmark = needs_lab


@pytest.fixture(scope="module")
def pair() -> Iterator[EncryptedPair]:
    with direct_pair() as net, encrypted(net) as made:
        yield made


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
            print("answered", flush=True)
    except OSError:
        pass
"""


def one_begins(clients: Sequence[Process]) -> None:
    """Wait until a connection that was begun after now has had its answer."""

    def answers() -> list[int]:
        return [client.output().count("answered") for client in clients]

    before = answers()
    # the first answer after now may be to a question that was asked before
    wait_for(lambda: any(now >= then + 2 for now, then in zip(answers(), before, strict=True)), "a new connection")


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
                one_begins(clients)
                for node in (pair.a, pair.b):
                    node.rewrite(ports=list(PORTS))
                    node.mcencrypt("reload")
                wait_for(lambda: pair.a.connections("encrypted"), "connections")
                for node in (pair.a, pair.b):
                    node.mcencrypt("off")
                wait_for(lambda: not pair.a.rules() and not pair.b.rules(), "the rules to go")
                one_begins(clients)
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
