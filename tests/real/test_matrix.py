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

VARIANTS = {"batches": 4, "singles": 6}
#: Quick ones, of every kind, and where they are played. What becomes of data depends on how it is cut; with numbers,
#: ends of connections and reboots that has nothing to do, and one variant shows it.
CHOSEN = {
    "loss-1": VARIANTS,
    "jitter": VARIANTS,
    "late-duplicates": VARIANTS,
    "split-lossy": VARIANTS,
    "renumbered": ["batches"],
    "mtu-1400": VARIANTS,
    "changed-data": VARIANTS,
    "forged-copies-ahead": ["singles"],
    "near-reset": ["batches"],
    "old-acknowledgements": ["singles"],
    "same-address": ["batches"],
    "reboot": ["singles"],
    "pruning": VARIANTS,
}
NAMED = {scenario.name: scenario for scenario in SCENARIOS}
PLAYED = dict.fromkeys((one.name for one in SCENARIOS if not one.slow), VARIANTS) if FULL else CHOSEN
CASES = [(shape, name) for shape in VARIANTS for name, shapes in PLAYED.items() if shape in shapes]


@pytest.fixture(scope="module")
def hostile(request):
    shape, version = request.param, VARIANTS[request.param]
    with hostile_network(SHAPES[shape]) as network, encrypted(network) as pair:
        pair.version = version
        yield pair


@pytest.mark.parametrize(("hostile", "name"), CASES, indirect=["hostile"], scope="module")
def test_streams_are_identical_or_their_ends_know(hostile, name):
    scenario, version = NAMED[name], hostile.version
    if not FULL:  # goodput is not looked at; what is done meanwhile takes its time
        size = min(scenario.traffic.size, 6e5 if scenario.act else 3e5)
        scenario = replace(scenario, traffic=replace(scenario.traffic, size=size))

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
