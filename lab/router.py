"""A router between two sides, with the strictest connection tracking Linux has.

What a stateful firewall on the path thinks is wrong with a stream (RFC 793 windows, checksums, unknown
connections), it drops and counts: so the count of a run says whether the packets made sense to somebody who
only watches them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

from .host import Host, comment_match
from .net import Lab

_INVALID = "lab invalid"


class Router(Host):
    """Forwards IPv4 and IPv6 between the interface `a` (inside) and the interface `b` (outside)."""

    def __init__(self, lab: Lab, name: str) -> None:
        super().__init__(lab, name)
        self.sysctl("net.ipv4.ip_forward", 1)
        self.sysctl("net.ipv6.conf.all.forwarding", 1)
        for tables in ("iptables", "ip6tables"):
            self.run(
                [
                    tables,
                    "-w",
                    "-A",
                    "FORWARD",
                    "-m",
                    "conntrack",
                    "--ctstate",
                    "INVALID",
                    *comment_match(_INVALID),
                    "-j",
                    "DROP",
                ]
            )
        for setting, value in (("tcp_be_liberal", 0), ("tcp_loose", 0), ("checksum", 1)):
            self.sysctl(f"net.netfilter.nf_conntrack_{setting}", value)

    def masquerade(self) -> None:
        """Connections from side a appear on side b under the router's own address there, IPv4 and IPv6."""
        for tables in ("iptables", "ip6tables"):
            self.run([tables, "-w", "-t", "nat", "-A", "POSTROUTING", "-o", "b", "-j", "MASQUERADE"])

    def publish(self, port: int, to: Host) -> None:
        """TCP connections from side b to `port` of the router's address there go to that port of a host on
        side a.
        """
        for tables, version in (("iptables", 4), ("ip6tables", 6)):
            if not any((":" in text) == (version == 6) for text in self.interfaces["b"]):
                continue
            address = to.address(version)
            target = f"[{address}]:{port}" if version == 6 else f"{address}:{port}"
            self.run(
                [
                    tables,
                    "-w",
                    "-t",
                    "nat",
                    "-A",
                    "PREROUTING",
                    "-i",
                    "b",
                    "-d",
                    self.address(version, "b"),
                    "-p",
                    "tcp",
                    "--dport",
                    port,
                    "-j",
                    "DNAT",
                    "--to-destination",
                    target,
                ]
            )

    def loss(self, fraction: float, toward: str = "both") -> None:
        """Lose a random fraction of what is forwarded toward "a", "b" or "both", after conntrack has seen it.

        A batch that crosses the lab as one 64 KB packet is lost as one: let the hosts send single segments
        (`tso=False`) where a loss should be one segment. 0 takes the loss away.
        """
        for side in "ab" if toward == "both" else toward:
            self.set_loss("mangle", "FORWARD", ["-o", side], fraction, f"lab loss to {side}")

    def loss_count(self, toward: str = "both") -> int:
        """Packets dropped by `loss` since it was last set."""
        sides = "ab" if toward == "both" else toward
        return sum(self.rule_packets("mangle", f"lab loss to {side}") for side in sides)

    @contextlib.contextmanager
    def cut(self, toward: str = "both") -> Iterator[None]:
        """Nothing is forwarded toward that side while the context lasts. Replaces `loss`."""
        self.loss(1, toward)
        try:
            yield
        finally:
            self.loss(0, toward)

    def rate(self, bits_per_second: float, queue: float = 0.02) -> None:
        """Make both links of the router that slow, in both directions, with `queue` seconds of buffer."""
        for side in "ab":
            self.shape(side, bits_per_second, queue)

    def invalid_count(self) -> int:
        """Forwarded packets that conntrack called INVALID and that were dropped for it, IPv4 and IPv6."""
        return self.rule_packets("filter", _INVALID)

    def conntrack_invalid(self) -> int:
        """The kernel's own count of packets it could not make sense of (`conntrack -S`), forwarded or not."""
        return sum(map(int, re.findall(r"\binvalid=(\d+)", self.run(["conntrack", "-S"]).stdout)))

    def connections(self) -> list[str]:
        """The TCP connections that the router tracks, one line each as conntrack(8) prints them."""
        return [
            line
            for family in ("ipv4", "ipv6")
            for line in self.run(["conntrack", "-L", "-f", family, "-p", "tcp"]).stdout.splitlines()
        ]
