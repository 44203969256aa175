"""docs/rollout.md, step by step: five nodes that never stop talking, from plaintext to require, then to another key."""

import pytest

from lab import Capture, LabError, wait_for
from mcencrypt.store.keys import create_network_key
from tests.helpers.fleet import asking, await_progress, counts, fleet
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.wire import assert_encrypted, plaintext_segments

pytestmark = needs_lab

NODES = 5


def totals(programs, name):
    return sum(one[name] for program in programs for one in counts(program).values())


def test_a_rollout_costs_each_connection_one_reconnect_and_a_new_key_none():
    with fleet(NODES, start=False) as nodes, asking(nodes, "--every", 0.2) as programs:
        # 1. one host after the other, on in prefer: nothing is reset
        for node in nodes:
            node.mcencrypt("mode", "prefer")
            assert "mcencrypt is on (prefer)" in node.mcencrypt("on").stdout
            node.adopt()
            await_progress(programs)
        assert totals(programs, "lost") == 0
        others = sorted(f"{node.v4}" for node in nodes[1:])
        in_plaintext = nodes[0].status()["plaintext_peers"]
        assert sorted({one["peer"].rpartition(":")[0] for one in in_plaintext}) == others
        assert len(in_plaintext) == 2 * (NODES - 1)

        # 2. one host after the other, what is left in plaintext ends, and comes back encrypted
        for number, node in enumerate(nodes):
            left = 2 * (NODES - 1 - number)
            if left:
                with pytest.raises(LabError, match=f"{left} plaintext connections would be cut"):
                    node.mcencrypt("mode", "require")
            node.mcencrypt("mode", "require", "--yes")
            await_progress(programs)
            assert node.status()["plaintext_peers"] == []
            encrypted = 2 * (NODES - 1)
            wait_for(lambda node=node, n=encrypted: len(node.connections("encrypted")) == n, "all encrypted")

        # 3. the configuration says the same: it decides again
        for node in nodes:
            assert node.mcencrypt("mode", "--from-config").stdout == "mode is require, as configured\n"
        with Capture(nodes[0].host, "eth0") as wire:
            await_progress(programs)
        assert_encrypted(wire)
        assert not plaintext_segments(wire, PORT)

        for program in programs:
            for peer, one in counts(program).items():
                assert (one["lost"], one["failed"], one["wrong"]) == (1, 0, 0), (program, peer, one)
                assert one["retried"] <= 1
        slowest = max(one["longest"] for program in programs for one in counts(program).values())
        print(f"{totals(programs, 'answered')} requests answered, {totals(programs, 'retried')} of them on a second "
              f"connection; the slowest took {slowest:.2f} s")  # fmt: skip

        # 4. the network key changes (docs/operations.md): nobody reconnects for it
        file = nodes.lab.directory / "next.key"
        create_network_key(file)
        old = nodes[0].status()["key_id"]
        lost = totals(programs, "lost")
        for node in nodes:
            node.mcencrypt("key", "add", file)
        (new,) = {one["id"] for one in nodes[0].status()["keys"]} - {old}
        for step in (("use", new), ("retire", old)):
            for node in nodes:
                node.mcencrypt("key", *step)
            await_progress(programs)
        assert totals(programs, "lost") == lost and totals(programs, "failed") == 0
        for node in nodes:
            assert [one["id"] for one in node.status()["keys"] if one["accepted"]] == [new]
