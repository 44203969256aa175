"""Routes of a real kernel, in namespaces of their own."""

from __future__ import annotations

import select
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab import PATIENCE
from mcencrypt.kernel import routes
from mcencrypt.kernel.handling import Handling
from mcencrypt.kernel.routes import Routes
from tests.helpers.netns import needs_root, pack, shell

pytestmark = [needs_root, pytest.mark.usefixtures("in_namespace")]


@pytest.fixture
def table_of_routes() -> Iterator[Routes]:
    shell(
        "ip link add name va type veth peer name vb",
        "ip link set vb up; ip link set va up",
        "ip addr add 192.0.2.1/24 dev va; ip addr add 192.0.2.9/32 dev va",
        "ip addr add 2001:db8::1/64 dev va nodad",
        "ip route add 198.51.100.0/24 via 192.0.2.2 mtu 1400",
        "ip route add 203.0.113.0/24 via 192.0.2.2",
        "ip route add 2001:db8:1::/48 via 2001:db8::2 mtu 1380",
        "ip route add blackhole 10.9.0.0/16; ip route add unreachable 2001:db8:9::/48",
        "ip rule add from 192.0.2.9 lookup 77; ip route add default via 192.0.2.2 mtu 1300 table 77",
    )
    made = Routes()
    yield made
    made.close()


@pytest.mark.parametrize(
    ("peer", "mtu"),
    [
        ("192.0.2.7", 1500),
        ("198.51.100.7", 1400),
        ("203.0.113.7", 1500),
        ("2001:db8::7", 1500),
        ("2001:db8:1::7", 1380),
        ("10.9.0.1", 576),
        ("2001:db8:9::1", 1280),
        ("10.8.0.1", 576),
        ("2001:db8:8::1", 1280),
    ],
)
def test_mtu_of_a_route(table_of_routes: Routes, peer: str, mtu: int) -> None:
    assert table_of_routes.mtu(pack(peer)) == mtu


def test_mtu_where_the_source_address_decides(table_of_routes: Routes) -> None:
    peer = pack("198.51.100.7")
    assert table_of_routes.mtu(peer, pack("192.0.2.9")) == 1300
    assert table_of_routes.mtu(peer, pack("192.0.2.1")) == 1400
    assert table_of_routes.mtu(peer, pack("192.0.2.200")) == 1400, "not an address of this host: ignored"


def test_mtu_of_ipv6_on_a_link_where_it_is_smaller(table_of_routes: Routes) -> None:
    """As a router advertisement sets it."""
    Path("/proc/sys/net/ipv6/conf/va/mtu").write_text("1320")
    assert table_of_routes.mtu(pack("2001:db8::7")) == 1320
    assert table_of_routes.mtu(pack("192.0.2.7")) == 1500


def test_mtu_of_link_local_peers(table_of_routes: Routes) -> None:
    shell("ip link set va mtu 1390")
    assert table_of_routes.mtu(pack("fe80::1234"), handling=Handling(socket.if_nametoindex("va"))) == 1390
    assert table_of_routes.mtu(pack("fe80::1234")) == 1280


@pytest.mark.parametrize(
    ("command", "mtu"),
    [
        ("ip route replace 198.51.100.0/24 via 192.0.2.2 mtu 1350", 1350),
        ("ip route del 198.51.100.0/24; ip link set va mtu 1450; ip route add default via 192.0.2.2", 1450),
        ("ip link set va down", 576),
    ],
)
def test_changes_of_routes_and_links_are_seen_at_once(table_of_routes: Routes, command: str, mtu: int) -> None:
    made = table_of_routes
    made.handle_events()
    assert not made.handle_events()
    assert made.mtu(pack("198.51.100.7")) == 1400
    shell(command)
    assert made.mtu(pack("198.51.100.7")) == 1400, "cached until the event is handled"
    assert select.select([made], [], [], PATIENCE)[0]
    assert made.handle_events()
    assert made.mtu(pack("198.51.100.7")) == mtu


def test_answers_expire_and_the_cache_is_bounded(table_of_routes: Routes, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[bytes] = []
    monkeypatch.setattr(routes, "_ask", lambda address, source, interface: asked.append(address) or 1234)
    monkeypatch.setattr(routes, "CAPACITY", 3)
    peers = [bytes([10, 0, 0, last]) for last in range(4)]
    for now in (100.0, 104.9, 105.0):
        table_of_routes.mtu(peers[0], now=now)
    assert asked == [peers[0]] * 2
    for peer in peers[1:]:
        table_of_routes.mtu(peer, now=106.0)
    assert len(table_of_routes._cache) == 3
    table_of_routes.mtu(peers[3], now=106.0)
    table_of_routes.mtu(peers[0], now=106.0)
    assert asked[2:] == [*peers[1:], peers[0]]


def test_mtu_below_what_every_host_takes_is_told_as_it_is(table_of_routes: Routes) -> None:
    shell("ip route replace 198.51.100.0/24 via 192.0.2.2 mtu 552")
    assert table_of_routes.mtu(pack("198.51.100.7")) == 552


def test_an_overrun_of_events_counts_as_a_change(table_of_routes: Routes) -> None:
    made = table_of_routes
    made.handle_events()
    made._listener._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    shell(
        "for i in $(seq 60); do ip route add 172.16.$i.0/24 via 192.0.2.2; done",
        "ip route del 198.51.100.0/24",
    )
    assert made.handle_events()
    assert made.mtu(pack("198.51.100.7")) == 576
