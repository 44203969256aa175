"""What one application writes is what the other reads, whatever the network does in between."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mcencrypt.core import egress
from tests.helpers.habits import Habits
from tests.helpers.network import Network
from tests.helpers.world import World, set_calm

#: How many times as many examples each test tries with HYPOTHESIS_PROFILE=deep.
EFFORT = 50 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 1


@pytest.fixture(autouse=True)
def the_true_calm() -> Iterator[None]:
    """Worlds change when records become larger; other tests must not see that."""
    kept = egress.CALM_AFTER
    yield
    set_calm(kept)


ISNS = st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0xFFFFFFFF - 4000, 0xFFFFFFFF))
SEEDS = st.integers(0, 1 << 32)


@settings(max_examples=30 * EFFORT)
@given(SEEDS, ISNS, ISNS, st.integers(0, 200_000), st.booleans(), st.booleans())
def test_one_direction_over_a_perfect_link(seed: int, isn: int, other: int, length: int, ipv6: bool, gso: bool) -> None:
    habits = Habits(gso=gso, scale=7, buffer=300_000)
    world = World(seed, Network(), (habits, habits), (length, 0), (isn, other), ipv6)
    world.settle()
    world.check()


def rates(*choices: float) -> st.SearchStrategy[float]:
    return st.sampled_from((0.0, *choices))


def networks(mtu: st.SearchStrategy[int], corruption: st.SearchStrategy[float]) -> st.SearchStrategy[Network]:
    return st.builds(
        Network,
        mtu=mtu,
        loss=rates(0.05, 0.3),
        duplication=rates(0.1),
        reordering=rates(0.1, 0.6),
        splitting=rates(0.1, 0.5),
        joining=rates(0.3),
        merging=rates(0.5, 1.0),
        corruption=corruption,
    )


def habits(mtu: int, buffers: tuple[int, ...]) -> st.SearchStrategy[Habits]:
    return st.builds(
        Habits,
        mtu=st.just(mtu),
        buffer=st.sampled_from(buffers),
        scale=st.integers(0, 8),
        trims=st.booleans(),
        sack=st.booleans(),
        timestamps=st.booleans(),
        gso=st.booleans(),
    )


@st.composite
def worlds(
    draw: st.DrawFn,
    lengths: tuple[int, ...] = (0, 1, 300, 5000, 60_000),
    buffers: tuple[int, ...] = (300, 3000, 65535, 200_000),
    corruption: tuple[float, ...] = (),
    epoch_bits: int = 32,
) -> World:
    ipv6 = draw(st.booleans())
    mtu = draw(st.sampled_from((1280, 1500, 9000) if ipv6 else (576, 1400, 1500, 9000)))
    return World(
        draw(SEEDS),
        draw(networks(st.just(mtu), rates(*corruption))),
        (draw(habits(mtu, buffers)), draw(habits(mtu, buffers))),
        (draw(st.sampled_from(lengths)), draw(st.sampled_from(lengths))),
        (draw(ISNS), draw(ISNS)),
        ipv6,
        epoch_bits,
        draw(st.sampled_from((0, 5000, 4 << 20))),
    )


STEPS = st.sampled_from((0, 10, 100, 600))


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
