"""All checks by topic, and running them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from mcencrypt.doctor import (
    boot,
    clock,
    configuration,
    docker,
    fence,
    foreign,
    kernel,
    network,
    nodes,
    routing,
    rules,
    running,
)
from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, Severity, note, problem
from mcencrypt.doctor.peer import MAX_ADDRESSES, Ask, Peer, check_peer

Check = Callable[[Case], Iterator[Finding]]

#: In the order in which they are shown.
TOPICS: dict[str, tuple[Check, ...]] = {
    "configuration": (configuration.check_configuration, configuration.check_files),
    "daemon": (running.check_daemon, boot.check_boot, running.check_refusals, kernel.check_process),
    "kernel": (kernel.check_kernel,),
    "iptables": (rules.check_backend, rules.check_rules, fence.check_fence, rules.check_queue),
    "other programs": (
        foreign.check_foreign_rules,
        foreign.check_programs,
        fence.check_marks,
        fence.check_rules_behind,
        docker.check_docker,
    ),
    "nodes and ports": (nodes.check_nodes,),
    "network": (network.check_interfaces, network.check_tracking, network.check_settings, routing.check_routing),
    "clock": (clock.check_clock,),
}


@dataclass(frozen=True, slots=True)
class Topic:
    """The findings of one topic."""

    name: str
    findings: tuple[Finding, ...]

    def above(self, lowest: Severity) -> Topic:
        """Only what is at least that bad."""
        return Topic(self.name, tuple(finding for finding in self.findings if finding.severity >= lowest))


def examine(case: Case) -> Iterator[Topic]:
    """Run every check."""
    for name, checks in TOPICS.items():
        yield Topic(name, tuple(finding for check in checks for finding in run_check(check, case)))


def examine_peer(case: Case, host: str, port: int | None, ask: Ask) -> list[Topic]:
    """Ask each address of a peer; without a port that of the configuration."""
    name = f"peer {host}"
    if port is None:
        if not case.ports:
            unknown = problem("peer.no-port", f"at which port is {host}? None is configured", "give HOST:PORT")
            return [Topic(name, (unknown,))]
        port = case.ports[0]
    try:
        addresses = case.machine.addresses(host)[:MAX_ADDRESSES]
    except OSError as error:
        unknown = problem("peer.unresolved", f"{host} has no address: {error.strerror}", "correct the name, or DNS")
        return [Topic(name, (unknown,))]
    topics = []
    for address in addresses:
        peer = Peer(address, port)
        findings = run_check(functools.partial(check_peer, peer=peer, ask=ask), case)
        topics.append(Topic(f"peer {peer}" if host == address else f"peer {host}, {peer}", tuple(findings)))
    return topics


def run_check(check: Check, case: Case) -> list[Finding]:
    """One check's findings; one that cannot be done says so and leaves the others alone."""
    found: list[Finding] = []
    try:
        found.extend(check(case))
    except OSError as error:
        what = getattr(check, "__name__", "peer").removeprefix("check_")
        found.append(note(f"{what}.unseen", f"not everything could be looked at: {error}", "run this as root"))
    return found


def worst(topics: list[Topic]) -> Severity:
    """The worst of all findings."""
    return max((finding.severity for topic in topics for finding in topic.findings), default=Severity.OK)
