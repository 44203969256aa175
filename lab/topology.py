"""The networks that demo, tests and benchmarks use, ready made."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from .host import Host, Offloads
from .net import Lab
from .router import Router

_PLAIN = Offloads()


@dataclass(frozen=True)
class TwoHosts:
    """Host a (inside), router, host b (outside)."""

    lab: Lab
    a: Host
    router: Router
    b: Host

    def public(self, version: int = 4) -> str:
        """The address under which side b sees a when the router masquerades; dial it for published ports."""
        return self.router.address(version, "b")


@dataclass(frozen=True)
class Pair:
    """Hosts a and b on one link."""

    lab: Lab
    a: Host
    b: Host


@contextlib.contextmanager
def two_hosts(
    *,
    nat: bool = True,
    mtu: int = 1500,
    tso: bool | None = True,
    gso: bool | None = True,
    gro: bool | None = True,
    tx: bool | None = None,
    ipv6: bool = True,
) -> Iterator[TwoHosts]:
    """Host a -- router -- host b: 10.66.1.0/24 and fd66:1::/64 on side a, 10.66.2.0/24 and fd66:2::/64 on
    side b.

    b also has a route to a's own addresses, so that it may dial a directly; with `Router.publish` it can dial
    the router's outside address instead. All hosts have interfaces `eth0`, the router `a` and `b`. The
    offload settings are those of the hosts; the router forwards what it gets and merges nothing.
    """
    host_offloads = Offloads(tso=tso, gso=gso, gro=gro, tx=tx)
    with Lab() as lab:
        a, router, b = lab.host("a"), lab.add(Router, "router"), lab.host("b")
        for number, (host, side) in enumerate(((a, "a"), (b, "b")), start=1):
            lab.link(
                host,
                "eth0",
                router,
                side,
                mtu=mtu,
                one_offloads=host_offloads,
                other_offloads=Offloads(gro=False),
            )
            lab.assign(host, "eth0", f"10.66.{number}.2/24")
            lab.assign(router, side, f"10.66.{number}.1/24")
            host.route("default", f"10.66.{number}.1")
            if ipv6:
                lab.assign(host, "eth0", f"fd66:{number}::2/64")
                lab.assign(router, side, f"fd66:{number}::1/64")
                host.route("default", f"fd66:{number}::1")
        if nat:
            router.masquerade()
        yield TwoHosts(lab, a, router, b)


@contextlib.contextmanager
def direct_pair(
    *,
    mtu: int = 1500,
    tso: bool | None = True,
    gso: bool | None = True,
    gro: bool | None = True,
    tx: bool | None = None,
    ipv6: bool = True,
) -> Iterator[Pair]:
    """Hosts a (10.66.0.1, fd66::1) and b (10.66.0.2, fd66::2), joined by one link."""
    offloads = Offloads(tso=tso, gso=gso, gro=gro, tx=tx)
    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        lab.link(a, "eth0", b, "eth0", mtu=mtu, one_offloads=offloads, other_offloads=offloads)
        number_hosts(lab, [a, b], ipv6)
        yield Pair(lab, a, b)


@contextlib.contextmanager
def lan(count: int, *, mtu: int = 1500, offloads: Offloads = _PLAIN, ipv6: bool = True) -> Iterator[list[Host]]:
    """That many hosts (10.66.0.1 ..., fd66::1 ...; h1 ...) on one bridge, which is a namespace of its own."""
    with Lab() as lab:
        switch = lab.host("switch")
        switch.ip("link", "add", "br0", "type", "bridge", "stp_state", 0, "mcast_snooping", 0)
        switch.ip("link", "set", "br0", "mtu", mtu, "up")
        hosts = []
        for number in range(1, count + 1):
            host = lab.host(f"h{number}")
            lab.link(host, "eth0", switch, f"h{number}", mtu=mtu, one_offloads=offloads)
            switch.ip("link", "set", f"h{number}", "master", "br0")
            hosts.append(host)
        number_hosts(lab, hosts, ipv6)
        yield hosts


def number_hosts(lab: Lab, hosts: list[Host], ipv6: bool) -> None:
    """Give each host's `eth0` its address in 10.66.0.0/24 and fd66::/64, counting from 1."""
    for index, host in enumerate(hosts, start=1):
        lab.assign(host, "eth0", f"10.66.0.{index}/24")
        if ipv6:
            lab.assign(host, "eth0", f"fd66::{index:x}/64")
