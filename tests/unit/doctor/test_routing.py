"""Policy routing's rules that the daemon's own packets may not follow."""

from __future__ import annotations

from socket import AF_INET, AF_INET6

import pytest

from mcencrypt.doctor.finding import Severity
from mcencrypt.doctor.routing import check_routing
from mcencrypt.doctor.routingrules import RoutingRule
from tests.helpers.recorded_machine import Recorded, case, status


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (RoutingRule(AF_INET, 100, 7, (1000, 1000), None, None), "ip rule 100 (table 7) goes by users 1000: packets"),
        (
            RoutingRule(AF_INET6, 1, 7, None, None, (7000, 8000)),
            "ip -6 rule 1 (table 7) goes by destination ports 7000-8000",
        ),
        (RoutingRule(AF_INET, 1, 7, (0, 9), (7331, 7331), None), "goes by users 0-9 and source ports 7331"),
    ],
)
def test_a_rule_by_user_or_p2p_port_is_named(machine: Recorded, rule: RoutingRule, said: str) -> None:
    machine.rules_of_routing = [rule]
    [found] = check_routing(case(machine, status()))
    assert found.severity is Severity.NOTE and said in found.text and "main table" in found.advice
    assert ("CAP_CHOWN" in found.advice) == (rule.source_ports is rule.destination_ports)


def test_rules_of_others_are_none_of_ours(machine: Recorded) -> None:
    machine.rules_of_routing = [
        RoutingRule(AF_INET, 0, 255, None, None, None), RoutingRule(AF_INET, 9, 7, (0, 0), None, (443, 443))
    ]  # fmt: skip
    [found] = check_routing(case(machine, status()))
    assert found.severity is Severity.OK
