"""Policy routing: rules that the daemon's own packets may not follow, and so leave by another way than the node's."""

from __future__ import annotations

from collections.abc import Iterator

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, ok
from mcencrypt.doctor.routingrules import RoutingRule


def check_routing(case: Case) -> Iterator[Finding]:
    """Rules by user or port, as far as they concern the P2P ports."""
    rules = [one for one in case.machine.routing_rules() if _concerns(one, case.ports)]
    for one in rules[:10]:
        advice = "give the main table a route by the same device, with a higher metric (docs/operations.md)"
        if one.uids and not (one.source_ports or one.destination_ports):
            advice = "let the daemon have CAP_CHOWN, or " + advice
        yield note(
            "routing.rules", f"{one.described}: packets that the daemon sends itself may leave another way", advice
        )
    if not rules:
        yield ok("routing.rules", "no rule of routing goes by user or P2P port")


def _concerns(rule: RoutingRule, ports: tuple[int, ...]) -> bool:
    spans = [span for span in (rule.source_ports, rule.destination_ports) if span]
    if spans:
        return any(low <= port <= high for low, high in spans for port in ports)
    return rule.uids is not None
