"""Three nodes on one bridge, each dialling both others: the ground that rollouts and key changes are tested on."""

import signal

from lab import wait_for
from tests.helpers.fleet import asking, fleet
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import event_count

pytestmark = needs_lab


def test_three_nodes_ask_each_other_encrypted():
    with fleet(3) as nodes:
        with asking(nodes) as programs:
            for node in nodes:
                wait_for(lambda node=node: len(node.connections("encrypted")) == 4, "two in, two out")
            nodes[0].mcencrypt("off", "--now")
            nodes[0].mcencrypt("on")
            wait_for(lambda: event_count(programs[0], "lost") == 2, "what h1 had dialled to be reset")
            wait_for(lambda: len(nodes[0].connections("encrypted")) == 4, "h1 to be back")
            programs[1].signal(signal.SIGHUP)
            wait_for(lambda: event_count(programs[1], "counts") == 1, "the counts")
            [counts] = [one["peers"] for one in programs[1].events() if one["event"] == "counts"]
        assert counts[f"10.66.0.3:{PORT}"]["lost"] == 0
        assert counts[f"10.66.0.1:{PORT}"]["lost"] >= 1
        assert all(one["answered"] and not one["wrong"] for one in counts.values())
