"""The network key changes on three nodes that talk all the while: nobody is cut off, and wrong orders are refused."""

import json
import signal

from lab import PATIENCE, wait_for
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.store.keys import create_network_key, load_network_key
from tests.helpers.fleet import asking, fleet
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import event_count

pytestmark = needs_lab


def id_of(file):
    return NetworkSecret(load_network_key(file).secret).key_id.hex()


def new_key(nodes):
    """(its file, its id, the id of the old one)"""
    file = nodes.lab.directory / "new.key"
    create_network_key(file)
    return file, id_of(file), id_of(nodes.lab.directory / "network.key")


def counts(program):
    seen = event_count(program, "counts")
    program.signal(signal.SIGHUP)
    wait_for(lambda: event_count(program, "counts") > seen, "the counts")
    return [one["peers"] for one in program.events() if one["event"] == "counts"][-1]


def refused(node, *words):
    """The error of a command that must fail."""
    done = node.mcencrypt("key", *words, check=False)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1, done
    return done.stderr


def ring(node):
    return {one["id"]: one for one in node.status()["keys"]}


def everybody_talks(nodes):
    for node in nodes:
        wait_for(lambda node=node: len(node.connections("encrypted")) == 2 * (len(nodes) - 1), "all to be back")


def test_a_whole_rotation_under_traffic_without_one_reconnect():
    with fleet(3) as nodes, asking(nodes) as programs:
        everybody_talks(nodes)
        file, new, old = new_key(nodes)
        first, second, third = nodes
        before = [counts(program) for program in programs]

        # Wrong orders, at each step: a key that is not there, peers that have it not, peers that offer it still.
        assert "no key" in refused(first, "use", new)
        first.mcencrypt("key", "add", file)
        error = refused(first, "use", new)
        assert "2 of 2 peers would be cut off" in error
        assert second.v4 in error and third.v4 in error and third.status()["identity"] in error
        second.mcencrypt("key", "add", file)
        error = refused(first, "use", new)
        assert "1 of 2 peers" in error and third.v4 in error and second.v4 not in error
        third.mcencrypt("key", "add", file)
        assert f"{old}; 1 more accepted" in third.mcencrypt("status").stdout
        assert "offers" in refused(first, "retire", old)
        assert first.status()["key_id"] == old

        assert "2 peers asked" in first.mcencrypt("key", "use", new[:6]).stdout
        assert first.status()["key_id"] == new and ring(first)[new]["offered"]
        error = refused(first, "retire", old)
        assert "2 of 2 peers would be cut off" in error and second.v4 in error
        second.mcencrypt("key", "use", new)
        error = refused(first, "retire", old)
        assert "1 of 2 peers" in error and third.status()["identity"] in error
        third.mcencrypt("key", "use", new)

        for node in nodes:
            done = node.mcencrypt("key", "retire", old)
            assert "2 peers asked" in done.stdout and "4 connections" in done.stdout
            assert str(nodes.lab.directory / "network.key") in done.stderr and new in done.stderr

        # Everything still runs on the connections from before, under the session keys from before.
        for node, program, earlier in zip(nodes, programs, before, strict=True):
            now = counts(program)
            for peer, count in now.items():
                assert count["lost"] == count["failed"] == count["wrong"] == count["retried"] == 0, (node, peer, count)
                assert count["answered"] > earlier[peer]["answered"]
            assert event_count(program, "connected") == 2
            assert {one["key_id"] for one in node.connections("encrypted")} == {old}
            gone = ring(node)[old]
            assert (gone["accepted"], gone["offered"], gone["connections"]) == (False, False, 4)

        # What is new begins under the new key.
        with first.socket() as sock:
            sock.settimeout(PATIENCE)
            sock.connect((second.v4, PORT))
            sock.sendall(b"\0\0\0\1x")
            assert len(sock.recv(100)) == 32
            for node in (first, second):
                assert sum(one["key_id"] == new for one in node.connections("encrypted")) == 1
        shown = json.loads(first.mcencrypt("key", "list", "--json").stdout)
        assert shown["base_key_retired"] and [one["id"] for one in shown["keys"]] == [new, old]
        assert new in first.mcencrypt("key", "list").stdout


def test_restarts_in_the_middle_of_a_rotation_change_nothing_about_it():
    with fleet(3) as nodes, asking(nodes):
        everybody_talks(nodes)
        file, new, old = new_key(nodes)
        for node in nodes:
            node.mcencrypt("key", "add", file)
        nodes[0].restart()
        everybody_talks(nodes)
        assert set(ring(nodes[0])) == {old, new} and nodes[0].status()["key_id"] == old
        for node in nodes[:2]:
            node.mcencrypt("key", "use", new)
        nodes[1].restart(signal.SIGTERM)
        everybody_talks(nodes)
        # Node 2 dials with the new key, node 3 with the old one, and each takes the other's.
        assert nodes[1].status()["key_id"] == new
        assert {one["key_id"] for one in nodes[1].connections("encrypted")} == {old, new}
        assert "1 of 2 peers" in refused(nodes[1], "retire", old)
        nodes[2].mcencrypt("key", "use", new)
        for node in nodes:
            node.mcencrypt("key", "retire", old)
        for node in nodes:
            node.restart()
        everybody_talks(nodes)
        for node in nodes:
            assert list(ring(node)) == [new] and node.status()["base_key_retired"]
            assert {one["key_id"] for one in node.connections("encrypted")} == {new}
            assert "retired on this node" in node.log()


def test_without_a_daemon_nobody_can_be_asked():
    with fleet(2) as nodes:
        file, new, old = new_key(nodes)
        nodes[0].kill()
        nodes[0].mcencrypt("key", "add", file)
        for step in ("use", "retire"):
            assert "no daemon answers" in refused(nodes[0], step, new)
        assert "no peer was asked" in nodes[0].mcencrypt("key", "use", new, "--force").stdout
        assert "another first" in refused(nodes[0], "retire", new, "--force")
        nodes[0].mcencrypt("key", "retire", old, "--force")
        listed = json.loads(nodes[0].mcencrypt("key", "list", "--json").stdout)
        assert [one["id"] for one in listed["keys"]] == [new] and listed["base_key_retired"]
        nodes[0].start()
        assert nodes[0].status()["key_id"] == new
        # Forced past the check, the two do not talk; and each knows whose key it was.
        result = nodes[1].mcencrypt("key", "list")
        assert old in result.stdout and new not in result.stdout
