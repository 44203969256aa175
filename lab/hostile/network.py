"""The network of all scenarios: host a, a router with strict connection tracking, the middlebox, host b.

What the middlebox does to frames toward b no router sees; so the router judges what both hosts say of themselves, and
whoever stands beside b can send it anything.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from lab.host import Host, Offloads
from lab.middlebox import Middlebox
from lab.net import Lab
from lab.router import Router

#: Bits per second of both directions, and seconds of buffer in front of each.
RATE, QUEUE = 10e6, 0.05


@dataclass(frozen=True)
class Shape:
    """How hosts hand packets to netfilter."""

    name: str
    offloads: Offloads
    #: Segments that a batch of the kernel's has at most: without GSO, too, it hands over several at once.
    segments: int = 65535


#: Checksums are finished and batches cut before the wire, in all of them.
SHAPES = {
    "batches": Shape("batches", Offloads(gso=True, gro=True, tx=False)),
    "singles": Shape("singles", Offloads(gso=False, gro=False, tx=False), 1),
}


@dataclass(frozen=True)
class Network:
    """Hosts a and b, and all that is between them."""

    lab: Lab
    a: Host
    router: Router
    box: Middlebox
    b: Host

    def host(self, name: str) -> Host:
        """Host "a" or "b"."""
        return self.a if name == "a" else self.b


@contextlib.contextmanager
def hostile_network(shape: Shape) -> Iterator[Network]:
    """a (10.66.1.2, fd66:1::2) -- router -- middlebox -- b (10.66.2.2, fd66:2::2).

    The router's links are slow, so that what is compared is what TCP makes of the path, and not who has how much of the
    processors, which middlebox, daemons and programs share.
    """
    with Lab() as lab:
        a, router, b, boxed = lab.host("a"), lab.add(Router, "router"), lab.host("b"), lab.host("box")
        boxed.sysctl("net.ipv6.conf.default.disable_ipv6", 1)
        nothing = Offloads(gso=False, gro=False, tx=False)
        lab.link(a, "eth0", router, "a", one_offloads=shape.offloads, other_offloads=nothing)
        lab.link(router, "b", boxed, "a", one_offloads=nothing, other_offloads=Offloads(gro=False))
        lab.link(boxed, "b", b, "eth0", one_offloads=Offloads(gro=False), other_offloads=shape.offloads)
        for number, (host, interface) in enumerate(((a, "eth0"), (b, "eth0")), start=1):
            side = "ab"[number - 1]
            host.ip("link", "set", "dev", interface, "gso_max_segs", shape.segments)
            lab.assign(host, interface, f"10.66.{number}.2/24", f"fd66:{number}::2/64")
            lab.assign(router, side, f"10.66.{number}.1/24", f"fd66:{number}::1/64")
            host.route("default", f"10.66.{number}.1")
            host.route("default", f"fd66:{number}::1")
        router.rate(RATE, QUEUE)
        with Middlebox(boxed) as box:
            yield Network(lab, a, router, box, b)
