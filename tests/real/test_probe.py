"""Probes on the real network: what a peer, a stranger and an unwilling path look like from here."""

import contextlib
import json
import socket

import pytest

from lab import PATIENCE, direct_pair, two_hosts, wait_for
from lab.packets import SYN
from mcencrypt.control.client import request
from mcencrypt.errors import OperatorError
from mcencrypt.store.keys import create_network_key
from tests.helpers import relays
from tests.helpers.nodes import PORT, PORTS, needs_lab
from tests.helpers.pairs import encrypted, talking

pytestmark = needs_lab


def probe(node, address, port=PORT, **arguments):
    return request(node.run_dir, "probe", timeout=PATIENCE, address=address, port=port, **arguments)


def syns(wire):
    """How many SYNs to the probed port passed."""
    return sum(segment.flags == SYN for segment in wire.segments(PORTS[1]))


@contextlib.contextmanager
def listening(node, port=PORT):
    program = node.python("lab.apps", "echo", port)
    program.wait_for('"listening"')
    yield program


@pytest.mark.parametrize("version", [4, 6])
def test_a_peer_answers_and_keeps_nothing_half_open(version):
    with two_hosts() as net, encrypted(net) as pair, talking(pair), listening(pair.b, PORTS[1]):
        # through a NAT router, beside a connection that lives
        before = pair.b.status()
        with pair.wire() as wire:
            result = probe(pair.a, pair.b.address(version), PORTS[1])
        assert result["outcome"] == "encrypted", result
        assert result["identity"] == before["identity"] and result["key_id"] == before["key_id"]
        assert result["offered"] is True and result["last_refused_key_id"] is None
        assert result["round_trip"] > 0 and result["attempts"] == syns(wire)

        def nothing_left():
            half_open = pair.b.run(["ss", "-Htn", "state", "syn-recv"]).stdout
            return not half_open.strip() and not pair.b.connections("handshake")

        wait_for(nothing_left, "the far side to have forgotten the probe")
        after = pair.b.status()
        assert after["totals"]["connections"] == before["totals"]["connections"]
        assert not pair.a.run(["ss", "-Htna", "sport", "=", ":7332", "or", "dport", "=", ":7332"]).stdout.strip()


def test_what_listens_nowhere_and_what_does_not_answer():
    with direct_pair() as net, encrypted(net) as pair:
        result = probe(pair.a, pair.b.v4)
        assert result["outcome"] == "refused" and "took our handshake off" in result["detail"]
        pair.b.mcencrypt("off")
        result = probe(pair.a, pair.b.v4)
        assert result["outcome"] == "refused" and "no mcencrypt" in result["detail"]
        with listening(pair.b):
            for address in (pair.b.v4, pair.b.v6):
                result = probe(pair.a, address)
                assert result["outcome"] == "no-mcencrypt" and result["identity"] is None
            pair.b.mcencrypt("on")
            assert probe(pair.a, pair.b.v4)["outcome"] == "encrypted"
        result = probe(pair.a, "10.66.0.99", seconds=1.5)
        assert result["outcome"] == "silent" and result["round_trip"] is None and result["attempts"] == 2


def test_another_key_is_silence_and_the_key_that_the_peer_offers_is_named():
    with direct_pair() as net:
        other = net.lab.directory / "other.key"
        create_network_key(other)
        with encrypted(net, b={"network_key": other}) as pair, listening(pair.b):
            assert probe(pair.a, pair.b.v4, seconds=0.5)["last_refused_key_id"] is None
            probe(pair.b, pair.a.v4, seconds=0.5)
            wait_for(lambda: pair.a.status()["refused"].get("wrong-key"), "a to have seen b's")
            result = probe(pair.a, pair.b.v4, seconds=0.5)
            assert result["outcome"] == "silent"
            assert result["last_refused_key_id"] == pair.b.status()["key_id"] != result["key_id"]


def test_what_cannot_be_probed_is_said():
    with direct_pair() as net, encrypted(net) as pair:
        for arguments, words in (
            ({"address": pair.b.v4, "port": 9}, "not one of the P2P ports"),
            ({"address": "b.example", "port": PORT}, "not an IP address"),
            ({"address": pair.a.v4, "port": PORT}, "address of this host"),
            ({"address": "198.51.100.1", "port": PORT}, "cannot reach"),
            ({"address": pair.b.v4, "port": PORT, "key_id": "00" * 8}, "no key '00000"),
            ({"address": pair.b.v4, "port": PORT, "key_id": "zz"}, "see `mcencrypt key list`"),
            ({"address": pair.b.v4}, "address and a port"),
        ):
            with pytest.raises(OperatorError, match=words):
                request(pair.a.run_dir, "probe", **arguments)
        pair.a.mcencrypt("off")
        with pytest.raises(OperatorError, match="encryption is off"):
            probe(pair.a, pair.b.v4)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("kind", ["socat", "haproxy"])
def test_behind_a_relay_a_peer_answers_in_the_stream(kind, version):
    relays.skip_without(kind)
    named = {"relayed": ["10.66.2.1", "fd66:2::1"]}
    with two_hosts(nat=False) as net, encrypted(net, b=named) as pair, listening(pair.b, PORTS[1]):
        relay = relays.Leg(net.router.address(version, "a"), PORTS[1])
        relays.start_relay(kind, net.router, relay, relays.Leg(net.b.address(version), PORTS[1]))
        entrance = relay.address
        assert probe(pair.a, entrance, PORTS[1])["outcome"] in ("no-mcencrypt", "stripped")
        result = probe(pair.a, entrance, PORTS[1], carrier="stream")
        assert result["outcome"] == "encrypted", result
        assert result["identity"] == pair.b.status()["identity"] and result["round_trip"] > 0
        wait_for(lambda: not pair.b.connections("handshake"), "the far side to have forgotten the probe")
        assert not pair.a.run(["ss", "-Htna", "sport", "=", ":7332", "or", "dport", "=", ":7332"]).stdout.strip()
        with pair.a.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as a:
            a.settimeout(PATIENCE)
            a.connect((entrance, PORTS[1]))
            a.sendall(b"still there")
            assert a.recv(100) == b"still there"
        found = json.loads(pair.a.mcencrypt("doctor", "--json", relay, check=False).stdout)["findings"]
        (carriers,) = [one for one in found if one["id"] == "peer.carriers"]
        assert "in the stream only" in carriers["text"]
        pair.b.rewrite(relayed=[])
        pair.b.mcencrypt("reload")
        result = probe(pair.a, entrance, PORTS[1], carrier="stream", seconds=2)
        assert result["outcome"] == "unanswered", result
