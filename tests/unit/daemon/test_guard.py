"""The watch over the rules, over a firewall that only plays."""

from __future__ import annotations

import pytest

from mcencrypt.daemon.guard import LOOK_EVERY, LOOK_EVERY_ANNOUNCED, Guard
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.ruleset import State
from tests.helpers.standins import FakeFirewall, FakeKernel, FakeLoop

PORTS = (7331,)


class Bench:
    """A guard, and what it reports."""

    def __init__(self, announces: bool = True) -> None:
        self.loop = FakeLoop()
        self.kernel = FakeKernel(self.loop, announces)
        self.guard = Guard(FakeFirewall(self.kernel, PORTS), self.loop, lambda: self.kernel.acts.append("loss told"))

    def seen(self) -> float | None:
        return self.guard.seen(self.loop.now())


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.guard.install()
    return made


def test_installed_rules_are_seen_from_then_on(bench: Bench) -> None:
    assert bench.kernel.installed == PORTS
    bench.loop.run(2)
    assert bench.seen() == 2


def test_nothing_is_watched_before_rules_are_wanted() -> None:
    bench = Bench()
    bench.loop.run(3 * LOOK_EVERY_ANNOUNCED)
    bench.kernel.announce()
    assert bench.kernel.checks == []
    assert bench.seen() is None


def test_rules_that_go_are_told_of_and_put_back_in_that_order(bench: Bench) -> None:
    bench.kernel.flush()
    bench.kernel.look()
    assert bench.kernel.acts == ["rules in", "loss told", "rules in"]
    assert bench.kernel.installed == PORTS
    assert (bench.guard.rules_lost, bench.seen()) == (1, 0)
    bench.kernel.flush()
    bench.kernel.look()
    assert bench.guard.rules_lost == 2


def test_changes_by_others_that_leave_ours_alone_do_nothing_but_a_look(bench: Bench) -> None:
    bench.kernel.announce()
    bench.kernel.look()
    assert bench.kernel.acts == ["rules in"]
    assert bench.guard.rules_lost == 0


def test_rules_that_are_not_first_are_moved_and_nothing_was_lost(bench: Bench) -> None:
    bench.kernel.announce()
    bench.kernel.look(State.DISPLACED)
    assert bench.kernel.acts == ["rules in", "rules in"]
    assert bench.guard.rules_lost == 0


def test_what_cannot_be_read_is_not_taken_for_gone(bench: Bench) -> None:
    bench.loop.run(1)
    bench.kernel.announce()
    bench.kernel.look(State.UNKNOWN)
    assert bench.kernel.acts == ["rules in"]
    assert (bench.guard.rules_lost, bench.seen()) == (0, 1)


@pytest.mark.parametrize(("announces", "seconds"), [(True, LOOK_EVERY_ANNOUNCED), (False, LOOK_EVERY)])
def test_the_clock_drives_looks_as_well(announces: bool, seconds: float) -> None:
    bench = Bench(announces)
    bench.guard.install()
    bench.kernel.installed = None  # and nobody says so
    bench.loop.run(seconds)
    bench.kernel.look()
    assert bench.kernel.installed == PORTS


def test_one_look_at_a_time_and_the_clock_asks_a_slow_one(bench: Bench) -> None:
    bench.kernel.announce()
    bench.kernel.announce()
    [check] = bench.kernel.checks
    check.see(State.MISSING)  # its descriptor says nothing
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    assert bench.guard.rules_lost == 1


def test_a_look_that_cannot_begin_is_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.kernel.refuses = "iptables-save was not found: install iptables"
    bench.kernel.flush()
    assert "install iptables" in caplog.text
    bench.kernel.refuses = ""
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    bench.kernel.look()
    assert bench.kernel.installed == PORTS


def test_rules_that_cannot_be_put_back_are_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.kernel.flush()
    bench.kernel.refuses = "another program holds the xtables lock"
    bench.kernel.look()
    assert "xtables lock" in caplog.text
    assert bench.seen() is None
    bench.kernel.refuses = ""
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    bench.kernel.look()
    assert bench.kernel.installed == PORTS
    assert bench.seen() == 0


def test_removed_rules_are_not_watched_any_more_and_a_look_under_way_is_given_up(bench: Bench) -> None:
    bench.kernel.announce()
    bench.guard.remove()
    assert bench.kernel.checks[-1].cancelled
    assert bench.seen() is None
    bench.loop.run(2 * LOOK_EVERY_ANNOUNCED)
    assert len(bench.kernel.checks) == 1
    assert bench.kernel.acts == ["rules in", "rules out"]


def test_rules_that_cannot_be_removed_stay_watched(bench: Bench) -> None:
    bench.kernel.refuses = "another program holds the xtables lock"
    with pytest.raises(OperatorError):
        bench.guard.remove()
    bench.kernel.refuses = ""
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    assert len(bench.kernel.checks) == 1


def test_other_ports_take_the_place_of_the_old_ones(bench: Bench) -> None:
    bench.kernel.announce()
    bench.guard.take_ports((8000, 8001))
    assert bench.kernel.checks[-1].cancelled
    assert bench.guard.ports == bench.kernel.installed == (8000, 8001)


def test_ports_taken_while_nothing_is_wanted_touch_no_rule() -> None:
    bench = Bench()
    bench.guard.take_ports((8000,))
    assert bench.kernel.installed is None
    bench.guard.install()
    assert bench.kernel.installed == (8000,)


def test_ports_that_cannot_be_taken_leave_the_old_ones_wanted(bench: Bench) -> None:
    bench.kernel.refuses = "iptables-restore failed"
    with pytest.raises(OperatorError):
        bench.guard.take_ports((8000,))
    assert bench.guard.ports == PORTS
    bench.kernel.refuses = ""
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    bench.kernel.look(State.MISSING)
    assert bench.kernel.installed == PORTS
