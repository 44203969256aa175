"""Rules as iptables-save shows them: what is missing, and the change to what is wanted."""

from __future__ import annotations

import pytest

from mcencrypt.kernel.firewall import Firewall
from mcencrypt.kernel.iptables import V4
from mcencrypt.kernel.ruleset import Rule, Ruleset, State, Table, change, change_shape, judge, judge_shape


def saved(text: str) -> Ruleset:
    """Rules as iptables-save would show them after `text` was restored."""
    return Ruleset.parse(text.replace("-I OUTPUT 1", "-A OUTPUT").replace("-I INPUT 1", "-A INPUT"))


@pytest.fixture
def text() -> str:
    return Firewall([7331, 8571], 99).render()[V4]


def lines_with(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_nothing_to_change_when_all_is_there(text: str) -> None:
    assert change(saved(text), Ruleset.parse(text)) == ""
    assert judge(saved(text), Ruleset.parse(text)) is State.PRESENT


def test_fresh_install_takes_egress_before_ingress(text: str) -> None:
    made = change(Ruleset(), Ruleset.parse(text))
    assert made == text
    assert made.index("*raw") < made.index("*mangle")


def test_other_ports_replace_the_rules_and_leave_the_jump_alone(text: str) -> None:
    made = change(saved(text), Ruleset.parse(Firewall([4000], 99).render()[V4]))
    assert not lines_with(made, "-I ") and not lines_with(made, "-D ")
    assert lines_with(made, ":MCENCRYPT-OUT - [0:0]")
    assert len(lines_with(made, "--dports 4000")) == 4


def test_a_jump_that_is_not_first_is_moved_within_one_transaction(text: str) -> None:
    other = "-A OUTPUT -d 192.0.2.1/32 -j ACCEPT\n"
    shown = saved(text.replace("-I OUTPUT 1", other + "-I OUTPUT 1"))
    assert judge(shown, Ruleset.parse(text)) is State.DISPLACED
    made = change(shown, Ruleset.parse(text))
    jump = Ruleset.parse(text).tables["raw"].jumps()[0].spec
    assert made.index(f"-D OUTPUT {jump}") < made.index(f"-I OUTPUT 1 {jump}") < made.index("COMMIT")
    assert "192.0.2.1" not in made
    assert "*mangle" not in made


def test_among_equal_jumps_none_is_kept_because_deletion_takes_the_first(text: str) -> None:
    jump = lines_with(text, "-I OUTPUT 1")[0] + "\n"
    made = change(saved(text.replace(jump, jump * 2)), Ruleset.parse(text))
    assert len(lines_with(made, "-D OUTPUT")) == 2
    assert len(lines_with(made, "-I OUTPUT 1")) == 1


@pytest.mark.parametrize("lost", ["-I OUTPUT 1", "-I INPUT 1", "--sports", "--dports"])
def test_a_lost_rule_is_noticed_and_comes_back(text: str, lost: str) -> None:
    shown = saved(text.replace(lines_with(text, lost)[0] + "\n", ""))
    assert judge(shown, Ruleset.parse(text)) is State.MISSING
    assert change(shown, Ruleset.parse(text))


def test_a_rule_put_into_our_chain_by_somebody_else_is_noticed(text: str) -> None:
    shown = saved(text.replace("-A MCENCRYPT-IN", "-A MCENCRYPT-IN -j ACCEPT\n-A MCENCRYPT-IN", 1))
    assert judge(shown, Ruleset.parse(text)) is State.MISSING
    assert change(shown, Ruleset.parse(text))


def test_the_same_rule_in_another_spelling_is_judged_by_what_was_shown_before(text: str) -> None:
    wanted = Ruleset.parse(text)
    shown = saved(text.replace("-p tcp", "-p 6"))
    assert judge(shown, wanted) is State.MISSING
    assert shown.same_shape(wanted)
    assert judge(shown, wanted, shown.ours()) is State.PRESENT
    assert judge(saved(text.replace("-p tcp", "-p 17")), wanted, shown.ours()) is State.MISSING


def test_removal_deletes_jumps_then_chains_and_nothing_else(text: str) -> None:
    other = '-A OUTPUT -m comment --comment "not MCENCRYPT-OUT" -j ACCEPT\n-A PREROUTING -j MCENCRYPT-OLD\n'
    shown = saved(
        text.replace(":MCENCRYPT-OUT", ":MCENCRYPT-OLD - [0:0]\n:MCENCRYPT-OUT").replace(
            "-I OUTPUT 1", other + "-I OUTPUT 1"
        )
    )
    made = change(shown, Ruleset())
    assert lines_with(made, "-D PREROUTING -j MCENCRYPT-OLD")
    assert {line.split()[1] for line in lines_with(made, "-X ")} == {
        "MCENCRYPT-OUT",
        "MCENCRYPT-OLD",
        "MCENCRYPT-IN",
    }
    assert "not MCENCRYPT-OUT" not in made
    assert not lines_with(made, "-A ")


def test_nothing_of_ours_means_nothing_to_remove() -> None:
    assert change(Ruleset.parse("*raw\n:OUTPUT ACCEPT [0:0]\n-A OUTPUT -j ACCEPT\nCOMMIT\n"), Ruleset()) == ""


def with_rule(text: str, rule: str) -> Ruleset:
    """Our rules, and one of somebody else's behind our jump."""
    jump = lines_with(text, "-I OUTPUT 1")[0]
    return saved(text.replace(jump, f"{jump}\n{rule}"))


@pytest.mark.parametrize(
    "rule",
    [
        "-A OUTPUT",  # counts, and does nothing else
        '-A OUTPUT -m comment --comment "R\udce9seau" -j ACCEPT',
        '-A OUTPUT -m comment --comment "a\nCOMMIT\n*raw\n:OUTPUT ACCEPT [0:0]\nb" -j ACCEPT',
        '-A OUTPUT -m comment --comment "a\n-A MCENCRYPT-OUT -j ACCEPT" -j ACCEPT',
        '-A OUTPUT -m comment --comment "a\n# Table `raw\' is incompatible" -j ACCEPT',
        '-A OUTPUT -m comment --comment "two\u2028lines\x85 and\x0bmore" -j ACCEPT',
        '-A OUTPUT -m comment --comment "quote \\" and \\\\" -j ACCEPT',
        "-A OUTPUT -m comment --comment it's -j ACCEPT",
    ],
)
def test_whatever_others_write_ours_are_seen_and_theirs_are_left_alone(text: str, rule: str) -> None:
    shown, wanted = with_rule(text, rule), Ruleset.parse(text)
    assert judge(shown, wanted) is State.PRESENT
    assert change(shown, wanted) == ""
    gone = change(shown, Ruleset())
    assert len(lines_with(gone, "-D ")) == len(lines_with(gone, "-X ")) == 2


def test_a_table_that_is_not_shown_is_unknown_and_not_gone(text: str) -> None:
    shown = saved("# Table `raw' is incompatible, use 'nft' tool.\n" + text[text.index("*mangle") :])
    assert shown.unread == {"raw"}
    assert judge(shown, Ruleset.parse(text)) is State.UNKNOWN
    assert change(shown, Ruleset.parse(text)) == ""
    assert "raw" not in change(shown, Ruleset())


def test_what_is_missing_beside_a_table_that_is_not_shown_is_still_missing(text: str) -> None:
    shown = Ruleset.parse("# Table `raw' is incompatible, use 'nft' tool.\n*mangle\n:INPUT ACCEPT [0:0]\nCOMMIT\n")
    assert judge(shown, Ruleset.parse(text)) is State.MISSING


@pytest.mark.parametrize("cut", ["COMMIT\n*mangle", "COMMIT\n"])
def test_a_table_without_its_end_is_unknown(text: str, cut: str) -> None:
    whole = text.replace("-I OUTPUT 1", "-A OUTPUT").replace("-I INPUT 1", "-A INPUT")
    shown = Ruleset.parse(whole.replace(cut, cut.removeprefix("COMMIT\n"), 1) if "*" in cut else whole[: -len(cut)])
    assert shown.unread == ({"raw"} if "*" in cut else {"mangle"})
    assert judge(shown, Ruleset.parse(text)) is State.UNKNOWN


def test_ours_are_known_by_their_shape_where_no_more_can_be_read(text: str) -> None:
    goal = Ruleset.parse(text).tables["raw"]
    shape = Table(goal.chains, tuple(Rule(rule.chain, f"-j {rule.value('-j')}") for rule in goal.rules))
    assert judge_shape(shape, goal) is State.PRESENT
    other = Rule("OUTPUT", "-j ACCEPT")
    assert judge_shape(Table(goal.chains, (other, *shape.rules)), goal) is State.DISPLACED
    assert judge_shape(Table(goal.chains, shape.rules[1:]), goal) is State.MISSING
    assert judge_shape(Table(goal.chains, shape.rules[:-1]), goal) is State.MISSING
    assert judge_shape(Table(), goal) is State.MISSING


def test_by_shape_rules_are_written_anew_and_jumps_do_not_pile_up(text: str) -> None:
    goal = Ruleset.parse(text).tables["raw"]
    made = change_shape("raw", goal, goal)
    assert not lines_with(made, "-I ")
    assert lines_with(made, ":MCENCRYPT-OUT - [0:0]") and len(lines_with(made, "-A MCENCRYPT-OUT")) == 4
    assert len(lines_with(change_shape("raw", Table(), goal), "-I OUTPUT 1")) == 1
