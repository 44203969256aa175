"""Interfaces, connection tracking, and settings of the kernel."""

from __future__ import annotations

import pytest

from mcencrypt.doctor.finding import Severity
from mcencrypt.doctor.machine import Output
from mcencrypt.doctor.network import check_interfaces, check_settings, check_tracking
from mcencrypt.kernel.links import Link
from tests.helpers.recorded_machine import ETHTOOL, Recorded, by_id, case, status, worst


def test_healthy_network(machine: Recorded) -> None:
    examined = case(machine, status())
    found = [*check_interfaces(examined), *check_tracking(examined), *check_settings(examined)]
    assert worst(found) is Severity.OK


@pytest.mark.parametrize(
    ("link", "name", "severity"),
    [
        (Link("eth1", "", False, {"gso_max_size": 200_000}, 1500), "links.big-tcp", Severity.PROBLEM),
        (Link("blue", "vrf", False, {}, 1500), "links.vrf", Severity.PROBLEM),
        (Link("ppp0", "", False, {}, 400), "links.tiny-mtu", Severity.PROBLEM),
        (Link("ppp0", "", False, {}, 1000), "links.low-mtu", Severity.NOTE),
        (Link("wg0", "wireguard", False, {}, 1420), "links.mtus", Severity.NOTE),
    ],
)
def test_interfaces(machine: Recorded, link: Link, name: str, severity: Severity) -> None:
    machine.interfaces.append(link)
    assert by_id(list(check_interfaces(case(machine, status()))), name).severity is severity
    machine.interfaces[-1] = link._replace(up=False)
    assert name not in {one.id for one in check_interfaces(case(machine, status()))}


def test_offloads_that_are_off(machine: Recorded) -> None:
    text = ETHTOOL.replace("receive-offload: on", "receive-offload: off")
    machine.outputs["ethtool -k eth0"] = Output(0, text)
    found = by_id(list(check_interfaces(case(machine, status()))), "links.offloads")
    assert found.advice == "ethtool -K eth0 gro on"


def test_a_veth_gets_what_was_merged_before(machine: Recorded) -> None:
    """Its GRO is off by default, in every container, and costs nothing there; its GSO does."""
    machine.interfaces[:] = [Link("eth0", "veth", False, {}, 1500)]
    machine.outputs["ethtool -k eth0"] = Output(0, ETHTOOL.replace("receive-offload: on", "receive-offload: off"))
    assert "links.offloads" not in {one.id for one in check_interfaces(case(machine, status()))}
    machine.outputs["ethtool -k eth0"] = Output(0, ETHTOOL.replace(": on", ": off"))
    found = by_id(list(check_interfaces(case(machine, status()))), "links.offloads")
    assert found.advice == "ethtool -K eth0 gso on"


@pytest.mark.parametrize(
    ("file", "value", "name"),
    [
        ("net/netfilter/nf_conntrack_count", "262000", "conntrack.full"),
        ("net/netfilter/nf_conntrack_tcp_loose", "0", "conntrack.strict"),
        ("net/ipv4/ip_no_pmtu_disc", "1", "settings.no-pmtu-discovery"),
        ("net/ipv4/tcp_sack", "0", "settings.sack"),
    ],
)
def test_settings_of_the_kernel(machine: Recorded, file: str, value: str, name: str) -> None:
    machine.files[f"/proc/sys/{file}"] = value
    examined = case(machine, status())
    assert by_id([*check_tracking(examined), *check_settings(examined)], name).severity > Severity.OK


@pytest.mark.parametrize(
    ("span", "reserved", "advice"),
    [
        ("7000\t9000", "\n", "ip_local_reserved_ports=7331,8571,"),
        ("8000\t60999", "22,8080-8090\n", "ip_local_reserved_ports=22,8080-8090,8571,"),
        ("32768\t60999", "\n", ""),
        ("7000\t9000", "7331,8500-8600\n", ""),
    ],
)
def test_ports_that_the_kernel_gives_to_whoever_dials(span: str, reserved: str, advice: str) -> None:
    machine = Recorded()
    machine.files["/proc/sys/net/ipv4/ip_local_port_range"] = span
    machine.files["/proc/sys/net/ipv4/ip_local_reserved_ports"] = reserved
    found = [one for one in check_settings(case(machine, status())) if one.id == "settings.port-range"]
    assert [one.severity for one in found] == [Severity.WARNING] * bool(advice)
    assert all(advice in one.advice for one in found)
