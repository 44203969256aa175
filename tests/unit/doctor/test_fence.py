"""Doctor: the fence, and whose marks and rules get in its way, on recorded outputs."""

from __future__ import annotations

from typing import Any

import pytest

from mcencrypt.doctor.fence import check_fence, check_marks, check_rules_behind
from mcencrypt.doctor.finding import Severity
from mcencrypt.doctor.machine import Output, Saved
from mcencrypt.kernel.iptables import V4, V6
from tests.helpers.recorded_machine import Recorded, by_id, case, status
from tests.helpers.replies import gate


@pytest.fixture
def machine() -> Recorded:
    return Recorded()


@pytest.mark.parametrize(
    ("changes", "name", "severity"),
    [
        ({}, "fence.owned", Severity.OK),
        ({"fence": "standing"}, "fence.standing", Severity.NOTE),
        ({"fence": "none", "no_fence": "the kernel cannot have the fence: load it"}, "fence.none", Severity.WARNING),
        ({"fence": "broken"}, "fence.broken", Severity.PROBLEM),
        ({"fence": "unseen"}, "fence.hidden", Severity.PROBLEM),
        ({"fence_lost": 2}, "fence.lost", Severity.WARNING),
        ({"trouble": "iptables-save failed"}, "fence.trouble", Severity.PROBLEM),
    ],
)
def test_what_the_daemon_says_of_it(machine: Recorded, changes: dict[str, Any], name: str, severity: Severity) -> None:
    found = by_id(list(check_fence(case(machine, status(gate=gate(**changes))))), name)
    assert found.severity is severity


def test_a_fence_without_a_daemon_closes_the_ports(machine: Recorded) -> None:
    assert by_id(list(check_fence(case(machine, None))), "fence.no-daemon").severity is Severity.PROBLEM
    machine.fenced = False
    assert not list(check_fence(case(machine, None)))
    machine.user = 1000
    assert by_id(list(check_fence(case(machine, None))), "fence.unseen").severity is Severity.NOTE


@pytest.mark.parametrize(
    ("rule", "clash"),
    [
        ("PREROUTING -i eth1 -j MARK --set-xmark 0x20/0xffffffff", True),
        ("PREROUTING -i eth1 -j MARK --set-xmark 0x30/0x30", True),
        ("FORWARD -m mark --mark 0x20/0x20 -j ACCEPT", True),
        ("FORWARD -m mark --mark 0x30/0xf0 -j ACCEPT", True),
        ("PREROUTING -j MARK --set-xmark 0x4000/0x4000", False),
        ("FORWARD -m mark --mark 0x10/0x30 -j ACCEPT", False),
        ("PREROUTING -j CONNMARK --restore-mark --nfmask 0xffffffff --ctmask 0xffffffff", False),
        ("FORWARD -m mark ! --mark 0x0/0xff0000 -j ACCEPT", False),
    ],
)
def test_rules_that_use_the_bit(machine: Recorded, rule: str, clash: bool) -> None:
    machine.saved.append(Saved("iptables-save", "nft", V4, f"*mangle\n-A {rule}\nCOMMIT\n", ""))
    found = list(check_marks(case(machine, status())))
    assert bool(found) is clash
    if clash:
        assert by_id(found, "fence.mark").severity is Severity.WARNING and rule in found[0].text
        assert not list(check_marks(case(machine, status(), fence_mark=0x8000000)))


@pytest.mark.parametrize(
    ("shown", "clash"),
    [
        ("32765:\tfrom all fwmark 0x20/0x20 lookup 100\n", True),
        ("32765:\tfrom all fwmark 0x21 lookup vpn\n", True),
        ("32765:\tfrom all fwmark 0x100/0xff00 lookup 100\n", False),
        ("32766:\tfrom all lookup main\n", False),
    ],
)
def test_routing_that_uses_the_bit(machine: Recorded, shown: str, clash: bool) -> None:
    machine.outputs["ip -6 rule show"] = Output(0, shown)
    assert bool(list(check_marks(case(machine, status())))) is clash


def test_nft_rules_that_use_the_bit_and_not_our_own(machine: Recorded) -> None:
    ours = (
        "table inet mcencrypt { # progname python3\n chain c {\n"
        '  oifname != "lo" meta mark & 0x00000020 == 0x00000000 drop\n }\n}\n'
    )
    theirs = "table inet vpn {\n chain c {\n  ip saddr 10.0.0.1 meta mark set 0x00000020\n }\n}\n"
    machine.outputs["nft list ruleset"] = Output(0, ours)
    assert not list(check_marks(case(machine, status())))
    machine.outputs["nft list ruleset"] = Output(0, ours + theirs)
    assert "table inet vpn: ip saddr" in by_id(list(check_marks(case(machine, status()))), "fence.mark").text


@pytest.mark.parametrize(
    ("place", "rule", "severity"),
    [
        ("OUTPUT ! -o lo", "OUTPUT -p tcp -m tcp --dport 7331 -j CT --notrack", Severity.WARNING),
        ("OUTPUT ! -o lo", "OUTPUT -j CT --zone 7", Severity.NOTE),
        ("INPUT ! -i lo", "INPUT -p tcp -m multiport --dports 22,7331 -j MARK --set-xmark 0x1/0x1", Severity.WARNING),
        ("OUTPUT ! -o lo", "OUTPUT -p tcp -m tcp --dport 22 -j CT --notrack", None),
        ("OUTPUT ! -o lo", "OUTPUT", None),
    ],
)
def test_rules_behind_ours_do_not_see_what_comes_back(
    machine: Recorded, place: str, rule: str, severity: Severity | None
) -> None:
    assert not list(check_rules_behind(case(machine, status())))
    shown = machine.saved[1].text
    jump = next(line for line in shown.splitlines() if line.startswith(f"-A {place}"))
    machine.change_rules(V6, jump, f"{jump}\n-A {rule}")
    found = list(check_rules_behind(case(machine, status())))
    assert [one.severity for one in found] == ([] if severity is None else [severity])
    assert all(rule in one.text for one in found)


def test_rules_in_front_of_ours_are_not_behind_them(machine: Recorded) -> None:
    machine.change_rules(V4, "-A OUTPUT ! -o lo", "-A OUTPUT -p tcp -m tcp --dport 7331 -j ACCEPT\n-A OUTPUT ! -o lo")
    assert not list(check_rules_behind(case(machine, status())))
