"""The texts of our rules."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.firewall import Firewall
from mcencrypt.kernel.iptables import V4, V6
from mcencrypt.kernel.quoting import matches
from mcencrypt.kernel.ruleset import Ruleset


@pytest.fixture
def text() -> str:
    return Firewall([7331, 8571], 99).render()[V4]


def lines_with(text: str, word: str) -> list[str]:
    return [line for line in text.splitlines() if word in line]


def test_every_rule_has_a_comment_and_queues_tcp_without_bypass(text: str) -> None:
    rules = [line for line in text.splitlines() if line.startswith("-")]
    assert rules
    assert all('--comment "mcencrypt' in rule for rule in rules)
    assert not [rule for rule in lines_with(text, "-p tcp ") if "bypass" in rule]
    assert len([rule for rule in lines_with(text, "-p tcp ") if "-j NFQUEUE --queue-num 99" in rule]) == 4
    assert len(lines_with(text, "--sports 7331,8571")) == len(lines_with(text, "--dports 7331,8571")) == 4


def test_every_rule_that_queues_comes_behind_one_that_opens_the_fence_for_the_same_packets(text: str) -> None:
    for table in Ruleset.parse(text).tables.values():
        rules = [rule for rule in table.own_rules() if rule.value("-p") == "tcp"]
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
    rendered = {family: "\n".join(lines_with(text, "tcp")) for family, text in Firewall([1], 2).render().items()}
    assert rendered[V4] == rendered[V6]


@pytest.mark.parametrize(("family", "protocol"), [(V4, "icmp"), (V6, "ipv6-icmp")])
@pytest.mark.parametrize("selective", [True, False])
def test_icmp_never_depends_on_a_daemon(family: str, protocol: str, selective: bool) -> None:
    rules = Ruleset.parse(Firewall([7331, 8571], 99, {}, selective=selective).render()[family])
    [mangle, raw] = (rules.tables[name].own_rules() for name in ("mangle", "raw"))
    errors = [rule for rule in mangle if rule.value("-p") == protocol]
    assert len(errors) == (2 if selective else 4)
    assert all(rule.spec.endswith("-j NFQUEUE --queue-num 99 --queue-bypass") for rule in errors)
    assert all(("0x1ca3,0x217b" in rule.spec) == selective for rule in errors)
    assert not [rule for rule in raw if rule.value("-p") == protocol]
    assert not [rule for rule in mangle if rule.value("-p") not in (protocol, "tcp")]


def test_a_change_of_ports_keeps_to_what_the_kernel_can() -> None:
    plain = Firewall([1], 2, {}, selective=False)
    assert "u32" not in plain.with_ports([3]).render()[V4] and "u32" not in plain.without_mark().render()[V6]


@pytest.mark.parametrize("count", [1, 10, 11, 31])
def test_no_u32_match_has_more_than_10_ports_and_none_is_lost(count: int) -> None:
    ports = list(range(1000, 1000 + count))
    for family in (V4, V6):
        found = matches(family, ports, True)
        for end in (">>0x10=", "&0xffff="):
            groups = [text.rpartition(end)[2].rstrip('"').split(",") for text in found if end in text]
            assert all(len(group) <= 10 for group in groups)
            assert [int(port, 16) for group in groups for port in group] == ports


@pytest.mark.parametrize("count", [1, 15, 16, 30, 31])
def test_no_multiport_match_has_more_than_15_ports_and_none_is_lost(count: int) -> None:
    ports = list(range(1000, 1000 + count))
    table = Ruleset.parse(Firewall(ports, 1).render()[V6]).tables["raw"]
    for option in ("--sports", "--dports"):
        queueing = [rule for rule in table.own_rules() if rule.value("-j") == "NFQUEUE"]
        groups = [rule.value(option).split(",") for rule in queueing if rule.value(option)]
        assert all(len(group) <= 15 for group in groups)
        assert [int(port) for group in groups for port in group] == ports


@pytest.mark.subprocesses
def test_a_fault_that_has_nothing_to_do_with_u32_does_not_cost_it(tmp_path: Path) -> None:
    """A held lock, say, for a moment: the rules that come then are as narrow as ever."""
    for name in ("iptables-save", "iptables-restore"):
        program = tmp_path / name
        program.write_text('#!/bin/sh\ncat >/dev/null\necho "cannot take the xtables lock" >&2\nexit 4\n')
        program.chmod(0o755)
    firewall = Firewall([7331], 99, {"PATH": str(tmp_path), "MCENCRYPT_IPTABLES": str(tmp_path / "iptables")})
    for change in (firewall.install, firewall.hold):
        with pytest.raises(OperatorError, match="lock"):
            change()
        assert "u32" in firewall.render()[V4]


def test_a_kernel_without_netfilter_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Module nfnetlink is not there, as after an update of the kernel without a reboot."""

    def refuse(*_: object) -> None:
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr("mcencrypt.kernel.netlink.socket.socket", refuse)
    with pytest.raises(OperatorError, match=r"Protocol not supported\): load its modules on the host \(modprobe nfn"):
        Firewall([7331], 99).events()
