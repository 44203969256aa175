"""The replay cache: a recorded message opens no other attempt, and nobody can make it refuse the others."""

from __future__ import annotations

import pytest

from mcencrypt.core.handshake import MAX_SKEW_MS, Refused
from mcencrypt.core.replays import CLOSE_MS, LIMIT, REMEMBERED, ReplayCache

NOW = 1_750_000_000_000


class Clocked:
    """A cache, and two clocks of which one can be set."""

    def __init__(self, limit: int = LIMIT) -> None:
        self.cache = ReplayCache(limit)
        self.unix_ms, self.now = NOW, 100.0
        self.made = 0

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.unix_ms += int(seconds * 1000)

    def admits(self, ahead_ms: int = 0, number: int | None = None, attempt: bytes = b"attempt") -> bool:
        """Whether a message is admitted whose sender's clock is ahead; by default one that was never seen."""
        self.made += 1
        name = (self.made + (1 << 40) if number is None else number).to_bytes(32, "big")
        try:
            self.cache.admit(name, attempt, self.unix_ms + ahead_ms, self.unix_ms, self.now)
        except Refused as refused:
            self.reason = refused.reason
            return False
        return True

    def replays(self, number: int, stamp_ms: int) -> bool:
        """Whether a recorded message, with its stamp, opens another attempt."""
        return self.admits(stamp_ms - self.unix_ms, number, b"another")


@pytest.fixture
def clocked() -> Clocked:
    return Clocked()


def test_a_message_belongs_to_the_attempt_that_it_came_with_first(clocked: Clocked) -> None:
    assert clocked.admits(number=1) and clocked.admits(number=1)
    assert not clocked.admits(number=1, attempt=b"another") and clocked.reason == "replayed"
    assert clocked.admits(number=2, attempt=b"another")
    clocked.passes(2 * MAX_SKEW_MS / 1000)
    assert clocked.admits(number=1)


def test_a_replay_is_refused_for_as_long_as_its_clock_is_accepted(clocked: Clocked) -> None:
    """Its clock is as far ahead as it may be."""
    stamp = NOW + MAX_SKEW_MS
    assert clocked.admits(MAX_SKEW_MS, 1)
    for _ in range(5):
        assert clocked.admits()
        assert not clocked.replays(1, stamp)
        clocked.passes(MAX_SKEW_MS / 2000)


def test_what_can_no_longer_be_replayed_is_forgotten(clocked: Clocked) -> None:
    for number in range(100):
        assert clocked.admits(number=number)
    clocked.passes(REMEMBERED + 1)
    assert clocked.admits() and len(clocked.cache) == 1
    assert not clocked.replays(7, NOW) and clocked.reason == "replayed", "nor admitted again, were it accepted"


def test_the_cache_is_bounded_and_what_it_forgot_is_not_admitted_again() -> None:
    clocked = Clocked(limit=8)
    for number in range(30):
        assert clocked.admits(number=number)
        assert len(clocked.cache) <= 8
        clocked.passes(0.001)
    assert not any(clocked.replays(number, NOW + number) for number in range(30))
    assert clocked.reason == "replayed" and clocked.admits()


def test_what_is_refused_changes_nothing() -> None:
    clocked = Clocked(limit=8)
    for number in range(4):
        assert clocked.admits(number=number)
    before = dict(clocked.cache._attempts), list(clocked.cache._by_stamp), clocked.cache._floor_ms
    for number in range(100):
        assert not clocked.admits(CLOSE_MS + 1) and not clocked.admits(number=number % 4, attempt=b"another")
    assert (clocked.cache._attempts, clocked.cache._by_stamp, clocked.cache._floor_ms) == before
    for number in range(4, 8):
        assert clocked.admits(number=number)
    before = dict(clocked.cache._attempts), list(clocked.cache._by_stamp), clocked.cache._floor_ms
    assert not clocked.admits(-1) and clocked.reason == "replayed"
    assert (clocked.cache._attempts, clocked.cache._by_stamp, clocked.cache._floor_ms) == before


# -- nobody shuts out the others


def test_messages_ten_minutes_ahead_shut_out_nobody(clocked: Clocked) -> None:
    """65,537 of them raised the floor to ten minutes ahead: until then nobody could dial in."""
    admitted = sum(clocked.admits(MAX_SKEW_MS) for _ in range(LIMIT + 1))
    assert admitted == LIMIT // 2 and clocked.reason == "clock-skew"
    for _ in range(600):
        assert clocked.admits() and clocked.admits(CLOSE_MS)
        clocked.passes(1.0)


@pytest.mark.parametrize("attacker_ahead", [0, CLOSE_MS // 2, CLOSE_MS])
def test_who_fills_the_cache_as_well_as_possible_shuts_out_no_right_clock(attacker_ahead: int) -> None:
    """At first ten minutes ahead; then as far ahead as is still taken, at any rate that leaves time for others."""
    clocked = Clocked(limit=512)
    for _ in range(512):
        clocked.admits(MAX_SKEW_MS)
    for _ in range(2000):
        for _ in range(100):
            clocked.admits(attacker_ahead)
        clocked.passes(1.0)
        assert clocked.admits(), clocked.reason
        assert len(clocked.cache) <= 512


def test_under_attack_clocks_behind_are_refused_last(clocked: Clocked) -> None:
    """The floor follows our clock at the distance that half of the cache lasts."""
    clocked = Clocked(limit=512)
    for _ in range(100):
        for _ in range(10):
            clocked.admits()
        clocked.passes(1.0)
    assert clocked.admits(-20_000) and not clocked.admits(-60_000)
    clocked.passes(2 * REMEMBERED)
    assert clocked.admits(-MAX_SKEW_MS), "it is over"


# -- a clock that jumps


@pytest.mark.parametrize("jump", [3600, 3 * 3600, 365 * 86400])
def test_a_clock_that_jumps_forward_and_back_forgets_no_replay(clocked: Clocked, jump: int) -> None:
    assert clocked.admits(number=1)
    clocked.unix_ms += jump * 1000
    for _ in range(10):
        assert clocked.admits(), "a peer whose clock has jumped as well"
    clocked.passes(60)
    clocked.unix_ms -= jump * 1000
    assert not clocked.replays(1, NOW)
    assert clocked.admits() and clocked.admits(-60_000), "who dials is let in"


def test_a_clock_that_is_ahead_for_long_forgets_no_replay(clocked: Clocked) -> None:
    assert clocked.admits(number=1)
    clocked.unix_ms += 3600_000
    for _ in range(30):
        clocked.passes(60)
        assert clocked.admits()
    clocked.unix_ms -= 3600_000 + 1800_000
    assert not clocked.replays(1, NOW), "neither"


def test_clocks_that_were_all_ahead_and_are_set_right_shut_out_nobody(clocked: Clocked) -> None:
    for number in range(10):
        assert clocked.admits(number=number)
    clocked.unix_ms -= 3600_000
    for _ in range(90):
        assert clocked.admits(), clocked.reason
        assert not clocked.replays(3, NOW)
        clocked.passes(60)
