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
