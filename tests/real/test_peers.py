"""Names, lists, and revoked keys, on three nodes that talk."""

import base64
import json

import pytest

from lab import LabError, wait_for
from tests.helpers.fleet import asking, await_progress, counts, fleet
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import event_count

pytestmark = needs_lab


def key_of(node):
    return node.mcencrypt("identity").stdout.strip()


#: The key of a node that is not there.
ABSENT = base64.b64encode(bytes(range(32))).decode()


def peers_of(node):
    result = json.loads(node.mcencrypt("peers", "--json").stdout)
    return {one["name"] or one["key"]: one["connections"] for one in result["peers"]}


def test_listing_and_revoking_while_nodes_talk():
    with fleet(3) as nodes, asking(nodes, "--every", 0.1) as programs:
        one, two, three = nodes
        keys = {node: key_of(node) for node in nodes}

        # names only
        one.mcencrypt("peers", "add", "two", keys[two])
        one.mcencrypt("peers", "add", "absent", ABSENT)
        shown = peers_of(one)
        assert {name: len(connections) for name, connections in shown.items()} == {
            "two": 2,
            keys[three]: 2,
            "absent": 0,
        }
        assert sum(connection["bytes_in"] for connection in shown["two"]) > 0
        assert {connection["name"] for connection in one.connections("encrypted")} == {"two", None}

        # listed: those of others end, and do not come back, whoever dials
        one.rewrite(trust="listed")
        assert "2 connections of peers that are not listed ended" in one.mcencrypt("reload").stdout
        wait_for(lambda: one.status()["refused"].get("not-listed", 0) >= 2, "both sides to have tried")
        await_progress(programs[:1], peers=[two.v4])
        assert f"mcencrypt peers add NAME {keys[three]}" in one.log()
        assert set(peers_of(one)) == {"two", "absent"}

        # and listed after all
        answers = counts(programs[0])[f"{three.v4}:{PORT}"]["answered"]
        assert "three is listed" in one.mcencrypt("peers", "add", "three", keys[three]).stdout
        wait_for(lambda: counts(programs[0])[f"{three.v4}:{PORT}"]["answered"] > answers, "three to answer")
        wait_for(lambda: len(peers_of(one)["three"]) == 2, "three to dial")
        assert "name=three" in one.log()

        # revoked
        lost = event_count(programs[1], "lost")
        assert "2 connections ended" in one.mcencrypt("peers", "remove", keys[two]).stdout
        wait_for(lambda: event_count(programs[1], "lost") > lost, "two to see it")
        assert set(peers_of(one)) == {"three", "absent"}
        await_progress(programs[:1], peers=[three.v4])
        assert not [connection for connection in one.connections("encrypted") if connection["name"] is None]
        assert sum(counts(programs[1])[f"{three.v4}:{PORT}"][name] for name in ("lost", "failed", "wrong")) == 0


def test_no_daemon_starts_that_trusts_only_listed_peers_and_has_no_list():
    with fleet(1, start=False, trust="listed") as [node]:
        with pytest.raises(LabError, match=r"peers\.toml: not found, and trust = .listed."):
            node.start()
        assert not node.rules()
        node.mcencrypt("peers", "add", "absent", ABSENT)
        node.start()
        assert node.status()["trust"] == "listed"
