"""The texts of our rules."""

from __future__ import annotations

import pytest

from mcencrypt.kernel.firewall import Firewall
from mcencrypt.kernel.iptables import V4, V6
from mcencrypt.kernel.ruleset import Ruleset


@pytest.fixture
def text() -> str:
    return Firewall([7331, 8571], 99).render()[V4]


def lines_with(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_every_rule_queues_without_bypass_and_has_a_comment(text: str) -> None:
    rules = [line for line in text.splitlines() if line.startswith("-")]
    assert rules
    assert all('--comment "mcencrypt' in rule for rule in rules)
    assert "bypass" not in text
    assert len(lines_with(text, "-j NFQUEUE --queue-num 99")) == 4
    assert len(lines_with(text, "--sports 7331,8571")) == len(lines_with(text, "--dports 7331,8571")) == 4


def test_every_rule_that_queues_comes_behind_one_that_opens_the_fence_for_the_same_packets(text: str) -> None:
    for table in Ruleset.parse(text).tables.values():
        rules = table.own_rules()
        assert [rule.value("-j") for rule in rules] == ["MARK", "NFQUEUE"] * 2
        for opens, queues in zip(rules[::2], rules[1::2], strict=True):
            assert opens.spec.partition(" -m comment")[0] == queues.spec.partition(" -m comment")[0]
            assert opens.spec.endswith("-j MARK --set-xmark 0x20/0x20")


def test_where_there_is_no_fence_no_mark_is_touched() -> None:
    bare = Firewall([7331], 99, {}, mark=None).render()[V4]
    assert "MARK" not in bare and "$" not in bare
    assert Firewall([7331], 99, {}).without_mark().render()[V4] == bare
    assert "--set-xmark 0x40/0x40" in Firewall([7331], 99, {}, mark=0x40).with_ports([1]).render()[V6]


def test_egress_is_taken_in_raw_output_and_ingress_in_mangle_input_but_never_on_lo(text: str) -> None:
    raw, mangle = Ruleset.parse(text).tables["raw"], Ruleset.parse(text).tables["mangle"]
    assert [(rule.chain, rule.spec.startswith("! -o lo ")) for rule in raw.jumps()] == [("OUTPUT", True)]
    assert [(rule.chain, rule.spec.startswith("! -i lo ")) for rule in mangle.jumps()] == [("INPUT", True)]


def test_both_families_have_the_same_rules() -> None:
    rendered = Firewall([1], 2).render()
    assert rendered[V4] == rendered[V6]


@pytest.mark.parametrize("count", [1, 15, 16, 30, 31])
def test_no_multiport_match_has_more_than_15_ports_and_none_is_lost(count: int) -> None:
    ports = list(range(1000, 1000 + count))
    table = Ruleset.parse(Firewall(ports, 1).render()[V6]).tables["raw"]
    for option in ("--sports", "--dports"):
        queueing = [rule for rule in table.own_rules() if rule.value("-j") == "NFQUEUE"]
        groups = [rule.value(option).split(",") for rule in queueing if rule.value(option)]
        assert all(len(group) <= 15 for group in groups)
        assert [int(port) for group in groups for port in group] == ports
