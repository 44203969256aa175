"""The watch over rules and fence, over a kernel that only plays."""

from __future__ import annotations

import pytest

from mcencrypt.daemon.guard import LOOK_EVERY, LOOK_EVERY_ANNOUNCED, PAUSE, STALE, Guard
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.firewall import CHECK_SECONDS
from mcencrypt.kernel.ruleset import State
from tests.helpers.standins import FakeFence, FakeFirewall, FakeKernel, FakeLoop

PORTS = (7331,)
#: How acts begin that put all in place.
UP = ["fence up", "rules in"]


class Bench:
    """A guard, and what it reports."""

    def __init__(self, announces: bool = True) -> None:
        self.loop = FakeLoop()
        self.kernel = FakeKernel(self.loop, announces)
        self.guard = Guard(
            FakeFirewall(self.kernel, PORTS),
            FakeFence(self.kernel, PORTS),
            self.loop,
            self.kernel.jobs,
            lambda: self.kernel.acts.append("loss told"),
            lambda: self.kernel.acts.append("return told"),
        )

    def seen(self) -> float | None:
        return self.guard.seen(self.loop.now())


@pytest.fixture
def bench() -> Bench:
    made = Bench()
    made.kernel.do(made.guard.install())
    made.kernel.acts.clear()
    return made


@pytest.fixture
def bare() -> Bench:
    """Where the kernel can have no fence."""
    made = Bench()
    made.kernel.fenceless = True
    made.kernel.do(made.guard.install())
    made.kernel.acts.clear()
    return made


# -- in and out


def test_the_fence_is_up_before_the_rules_and_away_after_them() -> None:
    bench = Bench()
    assert bench.guard.fence == "off"
    bench.kernel.do(bench.guard.install())
    assert bench.kernel.fenced == bench.kernel.installed == PORTS
    assert bench.guard.fence == "owned"
    bench.kernel.do(bench.guard.remove())
    assert bench.kernel.acts == [*UP, "rules out", "fence away"]
    assert bench.guard.fence == "off"


def test_a_fence_that_cannot_be_put_up_leaves_the_rules_alone() -> None:
    bench = Bench()
    bench.kernel.fence_refuses = "it belongs to another process"
    with pytest.raises(OperatorError, match="another process"):
        bench.kernel.do(bench.guard.install())
    assert bench.kernel.acts == []


def test_where_there_can_be_no_fence_the_rules_go_in_without_its_bit(caplog: pytest.LogCaptureFixture) -> None:
    bench = Bench()
    bench.kernel.fenceless = True
    bench.kernel.do(bench.guard.install())
    bench.kernel.do(bench.guard.install())
    assert bench.kernel.installed == PORTS and not bench.kernel.marking
    assert (bench.guard.fence, bench.guard.no_fence) == ("none", "the kernel cannot have the fence")
    assert caplog.text.count("cannot have the fence") == 1
    bench.kernel.fenceless = False  # its module has been loaded
    bench.kernel.do(bench.guard.install())
    assert bench.kernel.marking
    assert (bench.guard.fence, bench.guard.no_fence) == ("owned", "")


def test_who_can_change_the_fence_is_said() -> None:
    bench = Bench()
    bench.kernel.fence_owned = False
    bench.kernel.do(bench.guard.install())
    assert bench.guard.fence == "standing"


def test_installed_rules_are_seen_from_then_on(bench: Bench) -> None:
    bench.loop.run(2)
    assert bench.seen() == 2


def test_nothing_is_watched_before_rules_are_wanted() -> None:
    bench = Bench()
    bench.loop.run(3 * LOOK_EVERY_ANNOUNCED)
    bench.kernel.announce()
    assert bench.kernel.checks == 0
    assert bench.seen() is None


# -- what others remove


def test_rules_that_go_while_the_fence_stands_come_back_and_nobody_is_told(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.kernel.flush()
    bench.kernel.look()
    assert bench.kernel.acts == UP
    assert bench.kernel.installed == PORTS
    assert (bench.guard.rules_lost, bench.guard.fence_lost, bench.seen()) == (1, 0, 0)
    assert "nothing passed" in caplog.text
    bench.kernel.flush()
    bench.kernel.look()
    assert bench.guard.rules_lost == 2


def test_rules_and_fence_that_go_together_are_a_loss(bench: Bench) -> None:
    bench.kernel.flush(fence=True)
    assert bench.kernel.acts == ["fence up"], "at once, before anybody looks at the rules"
    bench.kernel.look()
    assert bench.kernel.acts == ["fence up", "loss told", *UP, "return told"]
    assert (bench.guard.rules_lost, bench.guard.fence_lost) == (1, 1)


def test_a_fence_that_goes_alone_comes_back_and_nothing_was_lost(bench: Bench) -> None:
    bench.kernel.fenced = None
    bench.kernel.announce()
    bench.kernel.look()
    assert bench.kernel.acts == ["fence up"]
    assert (bench.guard.rules_lost, bench.guard.fence_lost, bench.guard.fence) == (0, 1, "owned")


def test_a_fence_that_was_gone_counts_until_the_rules_were_seen_beside_it(bench: Bench) -> None:
    """The look under way may have seen the rules before they went."""
    bench.kernel.announce()
    bench.kernel.fenced = None
    bench.kernel.look(State.PRESENT)
    assert bench.kernel.acts == ["fence up"]
    bench.kernel.flush()
    bench.kernel.look()
    assert "loss told" in bench.kernel.acts


def test_a_fence_that_was_gone_is_forgiven_once_all_was_seen_together(bench: Bench) -> None:
    bench.kernel.fenced = None
    for _ in range(2):
        bench.kernel.announce()
        bench.kernel.look(State.PRESENT)
    bench.kernel.flush()
    bench.kernel.look()
    assert "loss told" not in bench.kernel.acts


def test_a_fence_that_cannot_be_seen_is_not_relied_on_and_not_touched(bench: Bench) -> None:
    bench.kernel.fence_hidden = True
    bench.kernel.announce()
    bench.kernel.look(State.PRESENT)
    assert bench.kernel.acts == []
    assert (bench.guard.fence_lost, bench.guard.fence) == (0, "unseen")
    bench.kernel.flush()
    bench.kernel.look()
    assert bench.kernel.acts == ["loss told", *UP, "return told"]


def test_without_a_fence_rules_that_go_are_a_loss(bare: Bench) -> None:
    bare.kernel.flush()
    bare.kernel.look()
    assert bare.kernel.acts == ["loss told", "rules in", "return told"]
    assert not bare.kernel.marking
    bare.kernel.flush()
    bare.kernel.look()
    assert bare.kernel.acts.count("loss told") == 2


def test_changes_by_others_that_leave_ours_alone_do_nothing_but_a_look(bench: Bench) -> None:
    bench.kernel.announce()
    bench.kernel.look()
    assert bench.kernel.acts == []
    assert bench.guard.rules_lost == 0


def test_rules_that_are_not_first_are_moved_and_nothing_was_lost(bare: Bench) -> None:
    bare.kernel.announce()
    bare.kernel.look(State.DISPLACED)
    assert bare.kernel.acts == ["rules in"]
    assert bare.guard.rules_lost == 0


def test_what_changes_during_a_look_starts_another_one_at_once(bench: Bench) -> None:
    """Rules flushed behind the back of a look were found five seconds later."""
    bench.kernel.announce()
    bench.kernel.flush()
    bench.kernel.look(State.PRESENT)
    assert bench.kernel.checks == 1
    bench.loop.run(PAUSE)
    assert bench.kernel.checks == 2
    bench.kernel.look()
    assert bench.guard.rules_lost == 1
    bench.loop.run(PAUSE)
    assert bench.kernel.checks == 2, "and no more than that"


def test_a_program_that_changes_rules_all_the_time_does_not_keep_us_busy(bench: Bench) -> None:
    for _ in range(100):
        bench.kernel.announce()
    bench.kernel.look()
    for _ in range(10):
        bench.kernel.events.changed = True
    bench.loop.run(PAUSE)
    assert bench.kernel.checks == 2


@pytest.mark.parametrize(("announces", "seconds"), [(True, LOOK_EVERY_ANNOUNCED), (False, LOOK_EVERY)])
def test_the_clock_drives_looks_as_well(announces: bool, seconds: float) -> None:
    bench = Bench(announces)
    bench.kernel.do(bench.guard.install())
    bench.kernel.installed = bench.kernel.fenced = None  # and nobody says so
    bench.loop.run(seconds)
    bench.kernel.look()
    assert bench.kernel.installed == bench.kernel.fenced == PORTS


def test_one_look_at_a_time(bench: Bench) -> None:
    bench.kernel.announce()
    bench.kernel.announce()
    assert bench.kernel.checks == 1


# -- what cannot be done


def test_what_cannot_be_read_is_not_taken_for_gone_and_is_said(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.loop.run(1)
    for _ in range(2):
        bench.kernel.announce()
        bench.kernel.look_in_vain("iptables-save failed: out of order")
    assert bench.kernel.acts == []
    assert (bench.guard.rules_lost, bench.seen()) == (0, 1)
    assert bench.guard.trouble == "iptables-save failed: out of order"
    assert caplog.text.count("out of order") == 1
    bench.kernel.announce()
    bench.kernel.look()
    assert bench.guard.trouble == ""


def test_a_look_that_hangs_is_known_within_ten_seconds(bench: Bench) -> None:
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    assert (bench.kernel.checks, bench.guard.trouble) == (1, "")
    bench.loop.run(CHECK_SECONDS)
    assert "not done in time" in bench.guard.trouble
    assert LOOK_EVERY_ANNOUNCED + CHECK_SECONDS < 10
    bench.loop.run(LOOK_EVERY_ANNOUNCED - CHECK_SECONDS)
    bench.kernel.look()
    assert bench.guard.trouble == ""


def test_rules_that_nobody_could_look_at_for_long_count_as_not_there(bench: Bench) -> None:
    assert bench.guard.rules_in_place(bench.loop.now() + STALE)
    assert not bench.guard.rules_in_place(bench.loop.now() + STALE + 1)


def test_a_look_that_cannot_begin_is_said_and_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.kernel.refuses = "iptables-save was not found: install iptables"
    bench.kernel.flush()
    assert "install iptables" in caplog.text
    assert "install iptables" in bench.guard.trouble
    bench.kernel.refuses = ""
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    bench.kernel.look()
    assert bench.kernel.installed == PORTS
    assert bench.guard.trouble == ""


def test_the_fence_is_watched_where_the_rules_cannot_be(bench: Bench) -> None:
    bench.kernel.refuses = "iptables-save was not found: install iptables"
    bench.kernel.flush(fence=True)
    assert bench.kernel.fenced == PORTS


def test_rules_that_cannot_be_put_back_are_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.kernel.flush()
    bench.kernel.refuses = "another program holds the xtables lock"
    bench.kernel.look()
    assert "xtables lock" in caplog.text
    assert "xtables lock" in bench.guard.trouble
    assert bench.seen() is None
    bench.kernel.refuses = ""
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    bench.kernel.look()
    assert bench.kernel.installed == PORTS
    assert (bench.seen(), bench.guard.trouble) == (0, "")


def test_a_fence_that_cannot_be_put_back_is_tried_again(bench: Bench) -> None:
    bench.kernel.fence_refuses = "it belongs to another process"
    bench.kernel.flush(fence=True)
    assert "another process" in bench.guard.trouble
    assert bench.guard.fence == "broken"
    bench.kernel.fence_refuses = ""
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    bench.kernel.look()
    assert bench.kernel.acts == ["fence up", "loss told", *UP, "return told"]


def test_removed_rules_are_not_watched_any_more(bench: Bench) -> None:
    bench.kernel.do(bench.guard.remove())
    assert bench.seen() is None
    bench.loop.run(2 * LOOK_EVERY_ANNOUNCED)
    assert bench.kernel.checks == 0
    assert bench.kernel.acts == ["rules out", "fence away"]


def test_what_is_wanted_during_a_look_comes_after_it_and_after_what_it_repairs(bench: Bench) -> None:
    bench.kernel.flush()
    done: list[None] = []
    bench.kernel.jobs.run(bench.guard.remove(), done.append, lambda problem: None)
    assert not done
    bench.kernel.look()
    assert done
    assert bench.kernel.acts == [*UP, "rules out", "fence away"]
    assert bench.kernel.installed is None


def test_a_look_that_waited_for_a_removal_does_not_happen(bench: Bench) -> None:
    bench.kernel.held = True
    bench.kernel.jobs.run(bench.guard.remove(), lambda nothing: None, lambda problem: None)
    bench.kernel.announce()
    bench.kernel.release()
    assert bench.kernel.checks == 0
    assert bench.kernel.acts == ["rules out", "fence away"]


@pytest.mark.parametrize("what", ["refuses", "fence_refuses"])
def test_what_cannot_be_removed_stays_watched(bench: Bench, what: str) -> None:
    setattr(bench.kernel, what, "another program is in the way")
    with pytest.raises(OperatorError):
        bench.kernel.do(bench.guard.remove())
    setattr(bench.kernel, what, "")
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    assert bench.kernel.checks == 1


# -- other ports


def test_other_ports_take_the_place_of_the_old_ones(bench: Bench) -> None:
    bench.kernel.do(bench.guard.take_ports((8000, 8001)))
    assert bench.guard.ports == bench.kernel.installed == bench.kernel.fenced == (8000, 8001)


def test_ports_taken_while_nothing_is_wanted_touch_no_rule() -> None:
    bench = Bench()
    bench.kernel.do(bench.guard.take_ports((8000,)))
    assert bench.kernel.installed is None and bench.kernel.fenced is None
    bench.kernel.do(bench.guard.install())
    assert bench.kernel.installed == bench.kernel.fenced == (8000,)


def test_ports_that_cannot_be_taken_leave_the_old_ones_wanted(bench: Bench) -> None:
    bench.kernel.refuses = "iptables-restore failed"
    with pytest.raises(OperatorError):
        bench.kernel.do(bench.guard.take_ports((8000,)))
    assert bench.guard.ports == PORTS
    bench.kernel.refuses = ""
    bench.loop.run(LOOK_EVERY_ANNOUNCED)
    bench.kernel.look(State.MISSING)
    assert bench.kernel.installed == bench.kernel.fenced == PORTS
