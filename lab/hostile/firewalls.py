"""What stands on a path and thinks that it knows better."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from lab.host import Host

from .frames import Marked, Renumbered, blanked, clamped, without_syn_data
from .network import Network
from .scenario import Scenario, Traffic

_TIMESTAMPS, _WINDOW_SCALE, _SACK_PERMITTED = 8, 3, 4
_SMALL = Traffic(size=3e5)


@contextlib.contextmanager
def both_set(network: Network, name: str, value: object) -> Iterator[None]:
    """A kernel setting of both hosts."""
    before = [host.sysctl(name) for host in (network.a, network.b)]
    for host in (network.a, network.b):
        host.sysctl(name, value)
    try:
        yield
    finally:
        for host, old in zip((network.a, network.b), before, strict=True):
            host.sysctl(name, old)


@contextlib.contextmanager
def _narrow(network: Network, mtu: int) -> Iterator[None]:
    """The router forwards no more than that to either side, and tells the senders."""
    ways = [(side, version, host.address(version)) for side, host in _sides(network) for version in (4, 6)]
    for side, version, address in ways:
        network.router.ip(f"-{version}", "route", "replace", address, "dev", side, "mtu", mtu)
    try:
        yield
    finally:
        for side, version, address in ways:
            network.router.ip(f"-{version}", "route", "delete", address, "dev", side)
        for _, host in _sides(network):
            for version in (4, 6):
                host.ip(f"-{version}", "route", "flush", "cache")
            # of which the kernel says nothing, but of this
            host.ip("route", "add", "blackhole", "192.0.2.0/24")
            host.ip("route", "delete", "blackhole", "192.0.2.0/24")


def _sides(network: Network) -> tuple[tuple[str, Host], ...]:
    """Hosts, by the interface of the router that leads there."""
    return ("a", network.a), ("b", network.b)


@contextlib.contextmanager
def _silent(network: Network, mtu: int) -> Iterator[None]:
    """As `_narrow`, but the router says nothing, and sockets try smaller segments."""
    rules = (
        ("iptables", ("-p", "icmp", "--icmp-type", "fragmentation-needed")),
        ("ip6tables", ("-p", "ipv6-icmp", "--icmpv6-type", "packet-too-big")),
    )
    for tables, words in rules:
        network.router.run([tables, "-w", "-A", "OUTPUT", *words, "-j", "DROP"])
    try:
        with _narrow(network, mtu), both_set(network, "net.ipv4.tcp_mtu_probing", 1):
            yield
    finally:
        for tables, words in rules:
            network.router.run([tables, "-w", "-D", "OUTPUT", *words, "-j", "DROP"])


SCENARIOS = (
    Scenario("renumbered", "a firewall shifts all sequence numbers, SACK blocks too", Renumbered),
    Scenario(
        "renumbered-badly",
        "a firewall shifts all sequence numbers, SACK blocks not",
        lambda dice: Renumbered(dice, sack=False),
    ),
    Scenario("no-timestamps", "a firewall takes timestamps out of SYNs", lambda dice: blanked(_TIMESTAMPS)),
    Scenario("no-sack", "a firewall takes SACK out of SYNs", lambda dice: blanked(_SACK_PERMITTED)),
    Scenario(
        "no-window-scale",
        "a firewall takes window scaling out of SYNs",
        lambda dice: blanked(_WINDOW_SCALE),
        traffic=_SMALL,
    ),
    Scenario(
        "no-options",
        "a firewall takes timestamps, SACK and window scaling out of SYNs",
        lambda dice: blanked(_TIMESTAMPS, _WINDOW_SCALE, _SACK_PERMITTED),
        traffic=_SMALL,
    ),
    Scenario(
        "congestion-marks",
        "5 % of the packets are marked as having met congestion (ECN)",
        lambda dice: Marked(0.05, dice=dice),
        setting=lambda network: both_set(network, "net.ipv4.tcp_ecn", 1),
    ),
    Scenario(
        "mtu-1400",
        "the router forwards 1400 bytes at most, and says so",
        setting=lambda network: _narrow(network, 1400),
    ),
    Scenario(
        "mtu-1300-mss-clamped",
        "the router forwards 1300 bytes at most, and a firewall clamps the MSS to 1220",
        lambda dice: clamped(1220),
        setting=lambda network: _narrow(network, 1300),
    ),
    Scenario(
        "mtu-1300-silent",
        "the router forwards 1300 bytes at most, ICMP is filtered, sockets probe (tcp_mtu_probing)",
        setting=lambda network: _silent(network, 1300),
        traffic=_SMALL,
    ),
    Scenario(
        "no-data-in-syn",
        "a proxy takes the data out of SYNs: b does not answer, and connect() gives up",
        lambda dice: without_syn_data(),
        traffic=Traffic(size=1e5, connections=1, deadline=5),
        may_end=True,
    ),
)
