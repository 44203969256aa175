"""Interfaces and their MTU, offloads, connection tracking, and other settings of the kernel's network."""

from __future__ import annotations

from collections.abc import Iterator

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, ok, problem, warning
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.links import Link, check_links

LOWEST_MTU = 576
_IPV6_MTU = 1280
_TABLE_FULL = 0.9
_OFFLOADS = {"generic-receive-offload": "gro", "generic-segmentation-offload": "gso"}


def check_interfaces(case: Case) -> Iterator[Finding]:
    """BIG TCP, VRF, MTU, and the offloads that speed comes from."""
    try:
        links = [link for link in case.machine.links() if link.up and not link.loopback]
    except OperatorError as error:
        yield note("links.unseen", str(error))
        return
    for link in links:
        try:
            check_links([link])
        except OperatorError as error:
            what, _, advice = str(error).partition(": ")
            yield problem("links.vrf" if link.kind == "vrf" else "links.big-tcp", what, advice)
        yield from _check_mtu(link)
        yield from _check_offloads(case, link)
    mtus = {link.mtu for link in links if link.mtu}
    if len(mtus) > 1 and _sysctl(case, "net/ipv4/tcp_mtu_probing") == 0:
        shown = ", ".join(f"{link.name} {link.mtu}" for link in links[:8] if link.mtu)
        yield note(
            "links.mtus",
            f"interfaces differ in MTU ({shown}), so a path may have a smaller one in its middle",
            "if small messages pass and blocks stall, something on it drops ICMP: sysctl -w "
            "net.ipv4.tcp_mtu_probing=1, or set the route's mtu",
        )
    elif links:
        yield ok("links.mtu", ", ".join(f"{link.name} MTU {link.mtu}" for link in links[:8]))


def _check_mtu(link: Link) -> Iterator[Finding]:
    if 0 < link.mtu < LOWEST_MTU:
        yield problem(
            "links.tiny-mtu",
            f"interface {link.name} has MTU {link.mtu}: the handshake does not fit a packet",
            f"ip link set dev {link.name} mtu 1500, or at least {LOWEST_MTU}",
        )
    elif 0 < link.mtu < _IPV6_MTU:
        yield note("links.low-mtu", f"interface {link.name} has MTU {link.mtu}: it cannot carry IPv6")


def _check_offloads(case: Case, link: Link) -> Iterator[Finding]:
    output = case.machine.run("ethtool", "-k", link.name)
    if output.status:
        return
    # what comes from a container, or from a network card by the host, is merged before it passes a veth
    wanted = _OFFLOADS if link.kind != "veth" else ("generic-segmentation-offload",)
    off = [name for name in wanted if f"\n{name}: off" in f"\n{output.text}"]
    if off:
        words = " ".join(f"{_OFFLOADS[one]} on" for one in off)
        yield warning(
            "links.offloads",
            f"interface {link.name} has {' and '.join(off)} off: each segment costs a call of the daemon, "
            "which makes it many times slower",
            f"ethtool -K {link.name} {words}",
        )


def check_tracking(case: Case) -> Iterator[Finding]:
    """Connection tracking of this host: it sees what the network sees, so nothing special is needed."""
    limit = _sysctl(case, "net/netfilter/nf_conntrack_max")
    if limit is None:
        yield ok("conntrack.none", "connection tracking is not in use here")
        return
    count = _sysctl(case, "net/netfilter/nf_conntrack_count") or 0
    liberal = _sysctl(case, "net/netfilter/nf_conntrack_tcp_be_liberal")
    if limit and count >= _TABLE_FULL * limit:
        yield warning(
            "conntrack.full",
            f"connection tracking is nearly full: {count} of {limit}; new connections get dropped",
            f"sysctl -w net.netfilter.nf_conntrack_max={limit * 2}",
        )
    else:
        text = f"connection tracking: {count} of {limit} entries, tcp_be_liberal {liberal} (either works)"
        yield ok("conntrack.room", text)
    if _sysctl(case, "net/netfilter/nf_conntrack_tcp_loose") == 0:
        yield note(
            "conntrack.strict",
            "nf_conntrack_tcp_loose is 0: after a flush of the table established connections count as INVALID",
            "nothing; multichaind redials",
        )


def check_settings(case: Case) -> Iterator[Finding]:
    """Settings that decide about IPv6, about black holes on the path, and about who gets the P2P ports."""
    yield from _check_port_range(case)
    if _sysctl(case, "net/ipv4/ip_no_pmtu_disc") not in (None, 0):
        yield note(
            "settings.no-pmtu-discovery",
            "net.ipv4.ip_no_pmtu_disc is set: packets may be fragmented on the way, and fragments are dropped",
            "sysctl -w net.ipv4.ip_no_pmtu_disc=0",
        )
    if _sysctl(case, "net/ipv4/tcp_sack") == 0:
        text = "net.ipv4.tcp_sack is 0: each loss costs a round trip"
        yield note("settings.sack", text, "sysctl -w net.ipv4.tcp_sack=1")
    if _sysctl(case, "net/ipv6/conf/all/disable_ipv6") == 1:
        yield ok("settings.ipv6", "IPv6 is disabled by sysctl; the IPv6 rules are there nevertheless")


def _check_port_range(case: Case) -> Iterator[Finding]:
    """Ports that the kernel gives to whoever dials: such a connection is on a P2P port by chance, and fails."""
    try:
        low, high = map(int, case.machine.text("/proc/sys/net/ipv4/ip_local_port_range").split())
    except (OSError, ValueError):
        return
    try:
        reserved = _ranges(case.machine.text("/proc/sys/net/ipv4/ip_local_reserved_ports"))
    except (OSError, ValueError):
        reserved = []
    inside = [port for port in case.ports if low <= port <= high]
    at_risk = [port for port in inside if not any(first <= port <= last for first, last in reserved)]
    if at_risk:
        kept = [f"{first}-{last}" if first != last else str(first) for first, last in reserved]
        wanted = ",".join([*kept, *map(str, at_risk)])
        yield warning(
            "settings.port-range",
            f"{', '.join(map(str, at_risk))} in net.ipv4.ip_local_port_range ({low} to {high}): other programs dial "
            "from there by chance, and such a connection fails",
            f"sysctl -w net.ipv4.ip_local_reserved_ports={wanted}, and the same in /etc/sysctl.d",
        )


def _ranges(text: str) -> list[tuple[int, int]]:
    """``8080,9000-9010`` as first and last ports. Raises ValueError."""
    found = []
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        found.append((int(first), int(last or first)))
    return found


def _sysctl(case: Case, name: str) -> int | None:
    try:
        return int(case.machine.text(f"/proc/sys/{name}").split()[0])
    except (OSError, ValueError, IndexError):
        return None
