"""The fast way gives the verdicts of the engine alone, and leaves the state that it would have left."""

from __future__ import annotations

import os
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from mcencrypt.core.engine import Engine
from tests.helpers.habits import Habits
from tests.helpers.network import Network
from tests.helpers.world import World

#: How many times as many examples with HYPOTHESIS_PROFILE=deep.
EFFORT = 50 if os.environ.get("HYPOTHESIS_PROFILE") == "deep" else 1


def state(engine: Engine) -> list[Any]:
    """All that the engine knows of its connections, as plain values."""
    return [_plain(flow) for flow in engine._by_local.values()]


NAMES: dict[str, tuple[str, ...]] = {
    "Flow": ("closing", "confirmed", "egress", "ingress", "marked", "seen", "ts_recent"),
    "Egress": (
        "bytes_sealed", "calm_from", "final_plain", "forced", "held", "ledger", "plain_una", "records_sealed",
        "largest_window", "retransmissions", "right_edge", "sacked", "sent", "shown_edge", "una",
    ),
    "Ingress": (
        "acked", "auth_failures", "fin_claims", "final_plain", "final_wire", "fragments", "ledger", "plain_acked",
        "plain_right_edge", "promised", "right_edge",
    ),
    "Fragments": ("_ends", "_pages", "_starts", "memory"),
    "Ledger": (
        "bytes_inserted", "origin", "plain_base", "plain_edge", "plain_top", "records_inserted", "runs", "wire_base",
        "wire_edge", "wire_top",
    ),
    "Run": ("blob", "count", "lead", "plain", "plain_end", "segment", "size", "wire", "wire_end"),
}  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, list):  # runs: the older ones were compared when they were new
        return len(value), [_plain(one) for one in value[-4:]]
    names = NAMES.get(type(value).__name__)
    return value if names is None else {name: _plain(getattr(value, name)) for name in names}


def trace(fast: bool, *made_from: Any, effort: int) -> tuple[list[tuple[object, ...]], int]:
    """Each verdict of a world's engines, with the state that it left; and how many took the fast way."""
    world = World(*made_from)
    world.fast = fast
    seen: list[tuple[object, ...]] = []
    world.observe = lambda side, outgoing, verdict: seen.append(
        (side, outgoing, verdict, state(world.engines[side]), dict(world.engines[side].outcome.refused))
    )
    for _ in range(effort):
        world.act(wild=True)
        world.deliver(world.random.randrange(2), wild=True)
    world.settle()
    world.check()
    return seen, world.taken


rates = st.sampled_from((0.0, 0.0, 0.05))


@settings(max_examples=25 * EFFORT, deadline=None)
@given(
    st.integers(0, 1 << 32),
    st.builds(Network, loss=rates, duplication=rates, reordering=rates, splitting=rates, joining=rates,
              merging=st.sampled_from((0.0, 0.9))),
    st.builds(Habits, gso=st.booleans(), scale=st.sampled_from((0, 7)), buffer=st.sampled_from((8000, 65535)),
              timestamps=st.booleans(), sack=st.booleans()),
    st.tuples(st.integers(0, 30_000), st.integers(0, 30_000)),
    st.tuples(st.integers(0, 0xFFFFFFFF), st.integers(0xFFFFFFFF - 4000, 0xFFFFFFFF)),
    st.booleans(),
    st.sampled_from((15, 32)),
    st.booleans(),
)  # fmt: skip
def test_verdicts_and_state_are_those_of_the_engine_alone(
    seed: int, network: Network, habits: Habits, lengths: tuple[int, int], isns: tuple[int, int], ipv6: bool, bits: int,
    streamed: bool,
) -> None:  # fmt: skip
    made_from = (seed, network, (habits, habits), lengths, isns, ipv6, bits, 20_000, streamed)
    alone, _ = trace(False, *made_from, effort=60)
    fast, _ = trace(True, *made_from, effort=60)
    for number, (expected, found) in enumerate(zip(alone, fast, strict=False)):
        assert found == expected, f"verdict {number} of {len(alone)}"
    assert len(alone) == len(fast)


def test_most_of_an_undisturbed_transfer_takes_the_fast_way() -> None:
    habits = Habits(scale=7, buffer=300_000)
    seen, taken = trace(True, 7, Network(), (habits, habits), (300_000, 300_000), (1, 2), False, 32, 4 << 20, effort=0)
    assert taken > 0.8 * len(seen), f"{taken} of {len(seen)}"
