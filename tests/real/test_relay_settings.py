"""What an operator can set, and change while connections live, where a relay ends TCP: as on direct paths."""

from __future__ import annotations

import contextlib
import select

import pytest

from lab import PATIENCE, transfer, two_hosts, wait_for
from lab.apps import receive
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.store.keys import create_network_key, load_network_key
from tests.helpers.nodes import PORT, needs_lab, sized
from tests.helpers.pairs import encrypted
from tests.helpers.rekeyed import EPOCH_BITS, with_small_epochs
from tests.helpers.relays import Leg, both_ways, needs_relays, start_relay

pytestmark = [needs_lab, needs_relays]

#: The relay as b sees it, and where a finds it.
RELAY, ENTRANCE = "10.66.2.1", "10.66.1.1"


@contextlib.contextmanager
def behind_haproxy(relayed=(RELAY,)):
    """Two nodes, a relay between them, and an echo on b."""
    with two_hosts(nat=False) as net, encrypted(net, b={"relayed": list(relayed)}) as pair:
        start_relay("haproxy", net.router, Leg(ENTRANCE, PORT), Leg(net.b.v4, PORT))
        yield pair


@contextlib.contextmanager
def echoing(node):
    echo = node.python("lab.apps", "echo", PORT)
    echo.wait_for('"listening"')
    yield
    echo.stop()


def dialled(pair, address=ENTRANCE):
    made = pair.a.socket()
    made.settimeout(PATIENCE)
    made.connect((address, PORT))
    return made


def echoes(sock):
    sock.sendall(b"said")
    return receive(sock, 4) == b"said"


def refused(pair):
    """Whether what a dials now ends in an error."""
    with contextlib.suppress(ConnectionError), dialled(pair) as sock:
        return not echoes(sock)
    return True


def unanswered(pair):
    """The relay has no more answer than any stranger has."""
    before = pair.b.status()["refused"].get("not-a-handshake", 0), pair.b.status()["connections"]
    with pair.router.socket() as relay:
        relay.setblocking(False)
        relay.connect_ex((pair.b.v4, PORT))
        wait_for(lambda: pair.b.status()["refused"].get("not-a-handshake", 0) >= before[0] + 2, "its SYN, twice")
        assert not select.select([], [relay], [], 0)[1]
        assert len(pair.b.status()["connections"]) == len(before[1])


def set_on(node, **settings):
    node.rewrite(**settings)
    node.mcencrypt("reload")


def test_relays_are_named_and_unnamed_while_connections_live():
    with behind_haproxy(relayed=()) as pair, echoing(pair.b):
        unanswered(pair)
        set_on(pair.b, relayed=[RELAY])
        with dialled(pair) as sock:
            assert echoes(sock)
            set_on(pair.b, relayed=[])
            assert echoes(sock), "who is connected stays so"
            unanswered(pair)
            set_on(pair.b, relayed=["10.66.2.0/24"])
            with dialled(pair) as another:
                assert echoes(another) and echoes(sock)


def test_only_who_is_listed_is_let_in():
    with behind_haproxy() as pair, echoing(pair.b):
        stranger = "A" * 42 + "E="
        pair.b.mcencrypt("peers", "add", "somebody", stranger)
        set_on(pair.b, trust="listed")
        assert refused(pair)
        assert pair.b.status()["refused"]["not-listed"] >= 1
        pair.b.mcencrypt("peers", "add", "a", pair.a.status()["identity"])
        with dialled(pair) as sock:
            assert echoes(sock)
            assert [one["name"] for one in pair.b.connections("encrypted")] == ["a"]
            pair.b.mcencrypt("peers", "remove", "a")
            with pytest.raises(ConnectionError):
                echoes(sock)


def test_session_keys_change_under_way():
    size = sized(8e6, 200e6)
    with behind_haproxy() as pair:
        for node in (pair.a, pair.b):
            with_small_epochs(node)
        assert transfer(pair.a, pair.b, PORT, address=ENTRANCE, size=size, deadline=300).differences == []
        for node in (pair.a, pair.b):
            totals = node.status()["totals"]
            assert totals["auth_failures"] == 0 and totals["bytes_out"] > 6 << EPOCH_BITS


def test_the_network_key_changes_and_nobody_is_cut_off():
    with both_ways() as net, encrypted(net, a={"relayed": [ENTRANCE]}, b={"relayed": [RELAY]}) as pair:
        net.start(("haproxy", "haproxy"), PORT)
        new = net.lab.directory / "new.key"
        create_network_key(new)
        new_id = NetworkSecret(load_network_key(new).secret).key_id.hex()
        old_id = pair.a.status()["key_id"]
        with echoing(pair.b), echoing(pair.a), dialled(pair, net.entrance_a) as sock:
            assert echoes(sock)
            pair.a.mcencrypt("key", "add", new)
            assert "1 of 1 peer would be cut off" in pair.a.mcencrypt("key", "use", new_id, check=False).stderr
            pair.b.mcencrypt("key", "add", new)
            for words in (("use", new_id), ("retire", old_id)):
                for node in (pair.a, pair.b):
                    assert "1 peer asked" in node.mcencrypt("key", *words).stdout
            assert echoes(sock), "the connection from before goes on"
            with dialled(pair, net.entrance_a) as another:
                assert echoes(another)
                for node in (pair.a, pair.b):
                    keys = {one["key_id"]: one["carrier"] for one in node.connections("encrypted")}
                    assert keys == {old_id: "stream", new_id: "stream"}
