"""Rules of others, and programs that change rules."""

from __future__ import annotations

import pytest

from mcencrypt.doctor.finding import Severity
from mcencrypt.doctor.foreign import check_foreign_rules, check_programs, concerns
from mcencrypt.doctor.machine import Output, Saved
from mcencrypt.kernel.iptables import V4, V6
from mcencrypt.kernel.ruleset import Rule
from tests.helpers.recorded_machine import (
    NETNS,
    Recorded,
    by_id,
    case,
    status,
)


@pytest.mark.parametrize(
    ("spec", "what"),
    [
        ("-p tcp -m tcp --dport 7331 -j DROP", "ports"),
        ("-p tcp -m tcp --sport 7000:8000 -j DROP", "ports"),
        ("-p tcp -m multiport --dports 22,8571 -j DROP", "ports"),
        ("-p tcp -m tcp ! --dport 22 -j DROP", "ports"),
        ("-p tcp -m tcp ! --dport 7331:8571 -j DROP", ""),
        ("-p tcp -m tcp --dport 22 -j DROP", ""),
        ("-p udp -m udp --dport 7331 -j DROP", ""),
        ("-i lo -p tcp -m tcp --dport 7331 -j DROP", ""),
        ("! -i lo -p tcp -m tcp --dport 7331 -j DROP", "ports"),
        ("-j DROP", "all"),
        ("-m conntrack --ctstate INVALID -j DROP", ""),
        ("-s 192.0.2.1/32 -j DROP", ""),
    ],
)
def test_which_rules_concern_our_ports(spec: str, what: str) -> None:
    assert concerns(Rule("INPUT", spec), (7331, 8571)) == what


@pytest.mark.parametrize(
    ("table", "rule", "name", "severity"),
    [
        ("filter", "INPUT -p tcp -m tcp --dport 7331 -j DROP", "foreign.drop", Severity.WARNING),
        ("filter", "FORWARD -j NFQUEUE --queue-num 0", "foreign.nfqueue", Severity.PROBLEM),
        ("mangle", "PREROUTING -p tcp -m tcp --dport 7331 -j TPROXY --on-port 1", "foreign.proxy", Severity.PROBLEM),
        ("raw", "PREROUTING -p tcp -m tcp --dport 8571 -j SYNPROXY", "foreign.synproxy", Severity.PROBLEM),
        ("nat", "ISTIO_OUT -p tcp -j REDIRECT --to-ports 15001", "foreign.redirect", Severity.WARNING),
        (
            "nat",
            "DOCKER ! -i docker0 -p tcp -m tcp --dport 7331 -j DNAT --to-destination 172.17.0.2:7331",
            "foreign.dnat",
            Severity.NOTE,
        ),
    ],
)
def test_rules_in_the_way_are_shown(machine: Recorded, table: str, rule: str, name: str, severity: Severity) -> None:
    assert not list(check_foreign_rules(case(machine, status())))
    machine.saved.append(Saved("iptables-save", "nft", V4, f"*{table}\n-A {rule}\nCOMMIT\n", ""))
    found = by_id(list(check_foreign_rules(case(machine, status()))), name)
    assert found.severity is severity and rule in found.text and found.advice


def test_a_firewall_that_lets_nobody_in(machine: Recorded) -> None:
    closed = "*filter\n:INPUT DROP [0:0]\n-A INPUT -i lo -j ACCEPT\n-A INPUT -p tcp --dport 22 -j ACCEPT\nCOMMIT\n"
    machine.saved.append(Saved("iptables-save", "nft", V6, closed, ""))
    assert by_id(list(check_foreign_rules(case(machine, status()))), "foreign.policy-ipv6").severity is Severity.NOTE
    machine.saved[-1] = machine.saved[-1]._replace(text=closed.replace("dport 22", "dport 7331"))
    assert not list(check_foreign_rules(case(machine, status())))
    last = closed.replace("INPUT DROP", "INPUT ACCEPT").replace("COMMIT", "-A INPUT -j REJECT --reject-with x\nCOMMIT")
    machine.saved[-1] = machine.saved[-1]._replace(text=last)
    assert by_id(list(check_foreign_rules(case(machine, status()))), "foreign.policy-ipv6")


def test_rules_made_with_nft_itself(machine: Recorded) -> None:
    text = (
        "table inet guard {\n chain in {\n  type filter hook input priority filter; policy accept;\n"
        "  tcp dport { 22, 7000-8000 } drop\n  tcp dport 443 drop\n }\n}\n"
        "table ip raw {\n chain OUTPUT {\n  tcp dport 7331 counter queue to 3\n }\n}\n"
    )
    machine.outputs["nft list ruleset"] = Output(0, text)
    found = by_id(list(check_foreign_rules(case(machine, status()))), "foreign.nft")
    assert "table inet guard: tcp dport { 22, 7000-8000 } drop" in found.text


def test_programs_that_change_rules_are_named(machine: Recorded) -> None:
    assert not list(check_programs(case(machine, status())))
    machine.add_process(10, "firewalld", "/usr/bin/python3", "/usr/sbin/firewalld", netns=NETNS)
    machine.saved.append(Saved("iptables-save", "nft", V4, "*filter\n:ufw-user-input - [0:0]\nCOMMIT\n", ""))
    assert {one.id for one in check_programs(case(machine, status()))} == {"foreign.firewalld", "foreign.ufw"}
    machine.add_process(10, "firewalld", "/usr/bin/python3", "/usr/sbin/firewalld", netns="net:[1]")
    assert {one.id for one in check_programs(case(machine, status()))} == {"foreign.ufw"}, "another network's rules"
