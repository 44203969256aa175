"""What one application writes is what the other reads, whatever the network does in between."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.habits import Habits
from tests.helpers.network import Network
from tests.helpers.strategies import EFFORT, ISNS, SEEDS, worlds
from tests.helpers.world import World

STEPS = st.sampled_from((0, 10, 100, 600))


@settings(max_examples=30 * EFFORT)
@given(SEEDS, ISNS, ISNS, st.integers(0, 200_000), st.booleans(), st.booleans())
def test_one_direction_over_a_perfect_link(seed: int, isn: int, other: int, length: int, ipv6: bool, gso: bool) -> None:
    habits = Habits(gso=gso, scale=7, buffer=300_000)
    world = World(seed, Network(), (habits, habits), (length, 0), (isn, other), ipv6)
    world.settle()
    world.check()


@settings(max_examples=300 * EFFORT)
@given(worlds(), STEPS)
def test_any_schedule(world: World, steps: int) -> None:
    world.run(steps)
    world.settle()
    world.check()


@settings(max_examples=90 * EFFORT)
@given(worlds(lengths=(300, 5000, 60_000), corruption=(0.05, 0.3)), STEPS)
def test_flipped_bits_delay_and_change_nothing(world: World, steps: int) -> None:
    world.run(steps)
    world.settle()
    world.check()


@settings(max_examples=60 * EFFORT)
@given(worlds(lengths=(5000, 20_000), buffers=(300, 1500), epoch_bits=12), STEPS)
def test_keys_change_under_way(world: World, steps: int) -> None:
    world.run(steps)
    world.settle()
    world.check()
    assert len(world.witnesses[0].bytes) > 4096


@settings(max_examples=6 * EFFORT)
@given(worlds(lengths=(400_000,), buffers=(60_000,), epoch_bits=17), STEPS)
def test_keys_change_in_batches(world: World, steps: int) -> None:
    world.run(steps)
    world.settle()
    world.check()


@settings(max_examples=50 * EFFORT)
@given(worlds(lengths=(300, 5000)), st.integers(0, 1), st.sampled_from((50, 200)))
def test_a_reset_is_exact_at_the_other_end(world: World, side: int, steps: int) -> None:
    world.run(steps)
    world.settle_handshake()
    other = world.ends[1 - side]
    world.ends[side].abort()
    world.transmit(side)
    world.calm()
    # One that was not exact was answered with a challenge, whose answer comes from a host without such a socket.
    assert other.reset
