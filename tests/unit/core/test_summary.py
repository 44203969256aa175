"""What all connections add up to."""

from __future__ import annotations

from mcencrypt.daemon.snapshot import counters, totals
from tests.helpers.packets import ACK, SYN
from tests.helpers.sides import ISN_A, ISN_B, A, B, Side, connect, connected, from_a, make, say


def test_the_summary_is_the_sum_of_the_status() -> None:
    a, b = connected()
    say(a, b, b"hello")
    b.gets(from_a(a, b"hello"))  # the same record a second time
    for side in (a, b):
        summed = totals(side.engine, side.engine.connections(0))
        summary = side.engine.summary()
        assert summed == {"connections": summary.encrypted, **counters(summary.carried)} and summary.encrypted == 1
        assert summary.states == {
            "handshake": 0, "unconfirmed": 0, "encrypted": 1, "closing": 0, "plaintext": 0, "health-check": 0
        } and summary.peers == 1  # fmt: skip
    assert b.engine.summary().carried.bytes_in == 5, "each byte counts once"
    assert a.engine.summary().carried.retransmissions == 1


def test_counters_keep_what_is_gone() -> None:
    a, b = connected()
    say(a, b, b"hello")
    before = b.engine.summary()
    b.table.forget(b.table.encrypted_keys()[0])
    after = b.engine.summary()
    assert (after.encrypted, after.carried) == (before.encrypted, before.carried) == (1, before.carried)
    assert after.states["encrypted"] == after.peers == 0
    connect(a, b, ISN_A + 10**6, ISN_B + 10**6)
    assert b.engine.summary().encrypted == 2


def test_plaintext_is_counted_and_stays_counted() -> None:
    b = Side(mode="prefer")
    b.ingress(make(A, B, ISN_A, 0, SYN))
    b.egress(make(B, A, ISN_B + 1, ISN_A + 1, ACK))
    b.ingress(make(A, B, ISN_A + 1, ISN_B + 1, ACK, b"plain"))
    summary = b.engine.summary()
    assert (summary.plaintext, summary.states["plaintext"], summary.plaintext_carried.bytes_in) == ({"prefer": 1}, 1, 5)
    [key] = b.table.plaintext_keys()
    b.table.leave_alone(key)
    summary = b.engine.summary()
    assert (summary.plaintext, summary.states["plaintext"], summary.plaintext_carried.bytes_in) == ({"prefer": 1}, 0, 5)
    assert summary.encrypted == summary.carried.bytes_in == 0
