"""Some of the scenarios of `lab.hostile`: what plain TCP and mcencrypt make of the same path.

`benchmarks/hostile` plays them all, and looks at goodput as well.
"""

import shutil
from dataclasses import replace

import pytest

from lab.hostile import SCENARIOS, SHAPES, Verdict, hostile_network, play
from tests.helpers.nodes import FULL, PLAIN_PORT, PORT, needs_lab
from tests.helpers.pairs import encrypted

pytestmark = needs_lab

#: Quick ones, of every kind.
CHOSEN = (
    "loss-1",
    "jitter",
    "late-duplicates",
    "split-lossy",
    "renumbered",
    "mtu-1400",
    "changed-data",
    "forged-copies-ahead",
    "near-reset",
    "old-acknowledgements",
    "same-address",
    "reboot",
    "pruning",
)
NAMED = {scenario.name: scenario for scenario in SCENARIOS}


@pytest.fixture(scope="module", params=[("batches", 4), ("singles", 6)], ids=lambda one: one[0])
def hostile(request):
    shape, version = request.param
    with hostile_network(SHAPES[shape]) as network, encrypted(network) as pair:
        pair.version = version
        yield pair


@pytest.mark.parametrize("name", [one.name for one in SCENARIOS if not one.slow] if FULL else CHOSEN)
def test_streams_are_identical_or_their_ends_know(hostile, name):
    scenario, version = NAMED[name], hostile.version
    if not FULL:  # goodput is not looked at
        scenario = replace(scenario, traffic=replace(scenario.traffic, size=min(scenario.traffic.size, 6e5)))

    def reboot():
        hostile.b.kill()
        shutil.rmtree(hostile.b.run_dir)
        hostile.b.start()

    plain = play(hostile.net, scenario, PLAIN_PORT, version)
    found = play(hostile.net, scenario, PORT, version, reboot=reboot)
    print(plain, found)
    assert found.tampered == 0
    allowed = {Verdict.IDENTICAL} | ({Verdict.ENDED} if scenario.may_end else set())
    assert found.verdict in allowed | ({plain.verdict} - {Verdict.TAMPERED, Verdict.CUT})
    # what is forged, or follows a reset, may be invalid itself
    assert not found.invalid or plain.invalid or scenario.resets or scenario.tampers
    assert bool(plain.tampered) <= scenario.tampers, "the scenario is not what it says"


def test_every_scenario_has_a_name_of_its_own():
    assert len(NAMED) == len(SCENARIOS) >= 40
    assert set(CHOSEN) <= set(NAMED)
