"""All checks by topic, and running them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mcencrypt.doctor import clock, configuration, docker, foreign, kernel, network, nodes, rules, running
from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, Severity, note

Check = Callable[[Case], Iterator[Finding]]

TOPICS: dict[str, tuple[Check, ...]] = {
    "configuration": (configuration.check_configuration, configuration.check_files),
    "daemon": (running.check_daemon, running.check_refusals, kernel.check_process),
    "kernel": (kernel.check_kernel,),
    "iptables": (rules.check_backend, rules.check_rules, rules.check_queue),
    "other programs": (foreign.check_foreign_rules, foreign.check_programs, docker.check_docker),
    "nodes and ports": (nodes.check_nodes,),
    "network": (network.check_interfaces, network.check_tracking, network.check_settings),
    "clock": (clock.check_clock,),
}
"""In the order in which they are shown."""


@dataclass(frozen=True, slots=True)
class Topic:
    """The findings of one topic."""

    name: str
    findings: tuple[Finding, ...]


def examine(case: Case) -> Iterator[Topic]:
    """Run every check."""
    for name, checks in TOPICS.items():
        yield Topic(name, tuple(finding for check in checks for finding in run_check(check, case)))


def run_check(check: Check, case: Case) -> list[Finding]:
    """One check's findings; one that cannot be done says so and leaves the others alone."""
    found: list[Finding] = []
    try:
        found.extend(check(case))
    except OSError as error:
        what = check.__name__.removeprefix("check_")
        found.append(note(f"{what}.unseen", f"not everything could be looked at: {error}", "run this as root"))
    return found


def worst(topics: list[Topic]) -> Severity:
    """The worst of all findings."""
    return max((finding.severity for topic in topics for finding in topic.findings), default=Severity.OK)
