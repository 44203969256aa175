"""What Hypothesis draws for tests of properties: worlds of all kinds."""

from __future__ import annotations

import os

from hypothesis import strategies as st

from tests.helpers.habits import Habits
from tests.helpers.network import Network
from tests.helpers.world import World

#: How many times as many examples each test tries with HYPOTHESIS_PROFILE=deep.
EFFORT = 50 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 1

ISNS = st.one_of(st.integers(0, 0xFFFFFFFF), st.integers(0xFFFFFFFF - 4000, 0xFFFFFFFF))
SEEDS = st.integers(0, 1 << 32)


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
