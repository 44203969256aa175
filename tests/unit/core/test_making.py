"""Flows, made of handshakes."""

from __future__ import annotations

from mcencrypt.core.handshake import HELLO_LENGTH, Carrier, Session
from mcencrypt.core.making import Making
from mcencrypt.core.paths import Paths
from mcencrypt.core.verdict import Outcome
from tests.helpers.sides import A, B, key_of

SESSION = Session(b"s" * 32, b"r" * 32, b"p" * 32)


def make(ours: int | None, theirs: int | None) -> tuple[int, int]:
    """The scales of our and of the peer's window, where each SYN said that."""
    flow = Making(Outcome(), Paths(lambda path: 1500), 32).flow(
        key_of(A, B), (1, 100, ours), (2, 200, theirs), SESSION, b"k" * 8, 1438, b"", True, 1.0
    )
    return flow.local_scale, flow.remote_scale


def test_windows_are_scaled_only_if_both_sides_said_so() -> None:
    """RFC 7323 section 2.2."""
    assert make(7, 9) == (7, 9) and make(0, 9) == (0, 9)
    assert make(7, None) == make(None, 9) == make(None, None) == (0, 0)


def test_a_flow_begins_behind_the_handshake_with_what_it_was_told() -> None:
    making = Making(Outcome(), Paths(lambda path: 1500), 20)
    flow = making.flow(
        key_of(A, B), (1, 100, 7), (2, 200, 9), SESSION, b"k" * 8, 1438, b"hello", False, 5.0, Carrier.STREAM
    )
    assert (flow.egress.isn, flow.ingress.isn, flow.egress.sent) == (1, 2, HELLO_LENGTH)
    assert (flow.identity, flow.key_id, flow.mss, flow.hello, flow.created) == (
        b"p" * 32,
        b"k" * 8,
        1438,
        b"hello",
        5.0,
    )
    assert not flow.confirmed and not flow.outgoing and flow.carrier is Carrier.STREAM
    assert flow.egress.keys.epoch_bits == 20 and making.last_used == {b"k" * 8: 5.0}
