"""The networks that demo, tests and benchmarks use, ready made."""

from __future__ import annotations

import contextlib
import ipaddress
import json
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

    def narrow(self, mtu: int, toward: str = "ab") -> None:
        """What the router forwards toward those sides may be that long from now on: of what is longer, and must not be
        fragmented, it tells the sender.
        """
        self.router.batch(
            f"route replace {ipaddress.ip_interface(text).ip} dev {side} mtu {mtu}"
            for side, host in (("a", self.a), ("b", self.b))
            for text in (host.interfaces["eth0"] if side in toward else ())
        )

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
def two_links(*, mtus: tuple[int, int] = (1500, 1500)) -> Iterator[Pair]:
    """Hosts a and b, joined by two links; b is to be dialled at 10.66.9.1 and fd66:9::1, which are on neither link.

    a (10.66.0.1 and 10.66.1.1, fd66::1 and fd66:1::1, fe80::a on both) takes `eth0` to get there. Its table 77, which
    no rule asks, takes `eth1`. b (.2, ::2, fe80::b on both) answers by the link that a's address belongs to, and by
    `eth0` to those of a's that belong to none, 10.66.8.1 and fd66:8::1.
    """
    with Lab() as lab:
        a, b = lab.host("a"), lab.host("b")
        for number, mtu in enumerate(mtus):
            link = f"eth{number}"
            lab.link(a, link, b, link, mtu=mtu)
            for host, last, name in ((a, 1, "a"), (b, 2, "b")):
                host.ip("-6", "address", "flush", "dev", link)  # what the kernel has made up
                v6 = f"fd66::{last}" if not number else f"fd66:{number}::{last}"
                lab.assign(host, link, f"10.66.{number}.{last}/24", f"{v6}/64", f"fe80::{name}/64")
        for host, net in ((a, 8), (b, 9)):
            host.interfaces["lo"] = []
            lab.assign(host, "lo", f"10.66.{net}.1/32", f"fd66:{net}::1/128")
        b.route("10.66.8.1", "10.66.0.1")
        b.route("fd66:8::1", "fd66::1")
        a.route("default", "10.66.0.2")
        a.route("default", "fd66::2")
        a.ip("-4", "route", "add", "default", "via", "10.66.1.2", "dev", "eth1", "table", 77)
        a.ip("-6", "route", "add", "default", "via", "fd66:1::2", "dev", "eth1", "table", 77)
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


def introduce(hosts: list[Host]) -> None:
    """Tell hosts of a `lan` each other's link addresses for good.

    The kernel learns 1024 of them at most, in all namespaces together (net.ipv4.neigh.default.gc_thresh3): too few for
    33 hosts that all talk to each other.
    """
    known = {}
    for host in hosts:
        (link,) = json.loads(host.ip("-j", "link", "show", "eth0"))
        known[host] = [(address.partition("/")[0], link["address"]) for address in host.interfaces["eth0"]]
    for host in hosts:
        host.batch(
            f"neigh replace {address} lladdr {link} dev eth0 nud permanent"
            for other in hosts
            if other is not host
            for address, link in known[other]
        )


def number_hosts(lab: Lab, hosts: list[Host], ipv6: bool) -> None:
    """Give each host's `eth0` its address in 10.66.0.0/24 and fd66::/64, counting from 1."""
    for index, host in enumerate(hosts, start=1):
        lab.assign(host, "eth0", f"10.66.0.{index}/24")
        if ipv6:
            lab.assign(host, "eth0", f"fd66::{index:x}/64")
