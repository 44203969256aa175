"""Two nodes, one of which gets another identity: who answered where is remembered, told, and with pin refused."""

import base64
import socket

import pytest

from lab import direct_pair, transfer, wait_for
from mcencrypt.store.answers import NAME
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import encrypted

pytestmark = needs_lab


def renew(node):
    """The node gets another identity."""
    node.kill()
    (node.state_dir / "identity.key").unlink()
    node.start()


def known(node):
    file = node.state_dir / NAME
    return file.read_text().split() if file.exists() else []


def identity(node):
    return node.status()["identity"]


def assert_refused(pair):
    """A dial fails at once, and the other end's half-open connection goes."""
    with pair.b.socket() as listening, pair.a.socket() as dialling:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((pair.b.v4, PORT))
        listening.listen(1)
        dialling.settimeout(30)
        with pytest.raises(ConnectionRefusedError):
            dialling.connect((pair.b.v4, PORT))


def test_another_key_is_told_and_remembered_over_a_restart():
    with direct_pair() as net, encrypted(net) as pair:
        first = identity(pair.b)
        assert transfer(pair.a, pair.b, PORT, size=1000).differences == []
        at = f"{pair.b.v4}:{PORT}"
        wait_for(lambda: known(pair.a)[:2] == [at, first], "the key to be on disk", 30)
        assert pair.a.status()["changed_keys"] == []
        renew(pair.b)
        pair.a.restart()
        assert transfer(pair.a, pair.b, PORT, size=1000).differences == [], "it is told, and believed"
        [changed] = pair.a.status()["changed_keys"]
        assert (changed["address"], changed["key"], changed["other_key"]) == (at, first, identity(pair.b))
        assert pair.a.log().count("another key answers at this address") == 1
        assert "CHANGED" in pair.a.mcencrypt("peers").stdout and "KEY CHANGED" in pair.a.mcencrypt("status").stdout
        wait_for(lambda: identity(pair.b) in known(pair.a), "that to be on disk", 30)
        assert "is forgotten" in pair.a.mcencrypt("peers", "forget", at).stdout
        assert pair.a.status()["changed_keys"] == []
        wait_for(lambda: known(pair.a) == [], "that it is forgotten to be on disk", 30)


def test_with_pin_another_key_is_refused_until_it_is_forgotten():
    with direct_pair() as net, encrypted(net, pin=True) as pair:
        assert transfer(pair.a, pair.b, PORT, size=1000).differences == []
        renew(pair.b)
        assert_refused(pair)
        assert pair.a.status()["refused"]["key-changed"] >= 1
        pair.a.mcencrypt("peers", "forget", pair.b.v4)
        assert transfer(pair.a, pair.b, PORT, size=1000).differences == []


def test_an_address_in_the_peers_file_names_the_only_key():
    with direct_pair() as net, encrypted(net) as pair:
        somebody = base64.b64encode(bytes(range(32))).decode()
        pair.a.mcencrypt("peers", "add", "b", identity(pair.b), "--address", f"{pair.b.v4}:{PORT}")
        assert transfer(pair.a, pair.b, PORT, size=1000).differences == []
        pair.a.mcencrypt("peers", "remove", "b")
        pair.a.mcencrypt("peers", "add", "other", somebody, "--address", pair.b.v4)
        assert_refused(pair)
        assert pair.a.status()["refused"]["key-changed"] >= 1
