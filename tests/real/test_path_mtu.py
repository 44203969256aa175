"""Paths that take less than the hosts' links: what routers say of it reaches the sockets, and nothing hangs."""

import contextlib
import errno
import socket
from pathlib import Path

import pytest
from scapy.layers.inet import ICMP, IP, TCP
from scapy.layers.inet6 import ICMPv6PacketTooBig, IPv6

from lab import start, transfer, two_hosts, wait_for
from mcencrypt.core.record import OVERHEAD
from tests.helpers.nodes import PACING, PORT, needs_lab, sized
from tests.helpers.pairs import encrypted
from tests.helpers.wire import assert_encrypted

pytestmark = needs_lab

SHAPES = {"batches": 65535, "singles": 1}
DEADLINE = 60
TCP_USER_TIMEOUT = 18


@pytest.fixture(scope="module")
def pair():
    with two_hosts() as net, encrypted(net) as pair:
        yield pair


@pytest.fixture
def fresh(pair):
    """Paths of 1500 bytes that nobody has learnt anything about."""
    pair.net.narrow(1500)
    for node in (pair.a, pair.b):
        for version in (4, 6):
            node.ip(f"-{version}", "route", "flush", "cache")
        # of which the kernel says nothing, but of this
        node.ip("route", "add", "blackhole", "192.0.2.0/24")
        node.ip("route", "delete", "blackhole", "192.0.2.0/24")
    yield pair
    pair.settle()


def shape(pair, segments):
    """Let the hosts send batches of at most that many segments."""
    for node in (pair.a, pair.b):
        node.ip("link", "set", "dev", "eth0", "gso_max_segs", segments)


def volume(segments, batches, full):
    """Bytes to carry: of single segments a fifth, which are as many packets."""
    return sized(batches if segments > 1 else batches / 5, full)


def pace(segments):
    """Single segments are cheaper to send slowly; batches would be smaller."""
    return 0 if segments > 1 else PACING


@pytest.mark.parametrize("segments", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mtu", [1300, 1280])
def test_a_hop_in_the_middle_that_takes_less(fresh, version, segments, mtu):
    shape(fresh, segments)
    fresh.net.narrow(mtu)
    before = fresh.router.invalid_count()
    with fresh.wire() as wire:
        size = volume(segments, 5e6, 20e6)
        result = transfer(fresh.a, fresh.b, PORT, version=version, size=size, connections=2, deadline=DEADLINE)
    assert result.differences == []
    assert fresh.router.invalid_count() == before
    assert_encrypted(wire)


@pytest.mark.parametrize("segments", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mtu", [1400, 1280])
def test_a_path_that_shrinks_in_mid_transfer(fresh, version, segments, mtu):
    shape(fresh, segments)
    size = volume(segments, 6e6, 200e6)
    how = {"endless": True, "pacing": pace(segments), "deadline": DEADLINE}
    running = start(fresh.a, fresh.b, PORT, version=version, connections=2, **how)
    goes_on(fresh, size)
    fresh.net.narrow(mtu)
    goes_on(fresh, size)
    running.end()
    assert running.result().differences == []
    if version == 4 or mtu > 1280:
        assert route_mtu(fresh.a, fresh.b.address(version)) == mtu - OVERHEAD


@pytest.mark.parametrize("segments", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("version", [4, 6])
def test_a_route_of_the_host_that_shrinks_in_mid_transfer(fresh, version, segments):
    """Full single segments grow longer than the kernel lets pass; once told, its own limit is below the path's."""
    shape(fresh, segments)
    size = volume(segments, 6e6, 200e6)
    how = {"endless": True, "pacing": pace(segments), "deadline": DEADLINE}
    running = start(fresh.a, fresh.b, PORT, version=version, connections=2, **how)
    goes_on(fresh, size)
    gateways = (
        {fresh.a: "10.66.1.1", fresh.b: "10.66.2.1"} if version == 4 else {fresh.a: "fd66:1::1", fresh.b: "fd66:2::1"}
    )
    for node, gateway in gateways.items():
        node.route("default", gateway, "mtu", 1400)
    try:
        goes_on(fresh, size)
        running.end()
        assert running.result().differences == []
    finally:
        for node, gateway in gateways.items():
            node.route("default", gateway)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("hop", [9000, 1500])
def test_jumbo_frames_on_one_side(version, hop):
    """a's link takes 9000 bytes and b's 1500; or both take 9000, and what lies between them does not."""
    with two_hosts(mtu=9000) as net:
        if hop == 9000:
            for host, interface in ((net.b, "eth0"), (net.router, "b")):
                host.ip("link", "set", "dev", interface, "mtu", 1500)
        net.narrow(hop)
        with encrypted(net) as pair, pair.wire() as wire:
            result = transfer(
                pair.a, pair.b, PORT, version=version, size=sized(8e6, 100e6), connections=2, deadline=DEADLINE
            )
            assert result.differences == []
        assert_encrypted(wire)
        assert pair.router.invalid_count() == 0


@pytest.mark.parametrize("segments", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("version", [4, 6])
def test_a_hop_that_says_nothing_and_sockets_that_probe(fresh, version, segments):
    """RFC 4821: with ICMP filtered a socket that has net.ipv4.tcp_mtu_probing finds out by itself."""
    shape(fresh, segments)
    fresh.net.narrow(1300)
    tables, protocol = ("iptables", "icmp") if version == 4 else ("ip6tables", "ipv6-icmp")
    kind = "fragmentation-needed" if version == 4 else "packet-too-big"
    silence = ["OUTPUT", "-p", protocol, "--icmp-type" if version == 4 else "--icmpv6-type", kind, "-j", "DROP"]
    fresh.router.run([tables, "-w", "-A", *silence])
    for node in (fresh.a, fresh.b):
        node.sysctl("net.ipv4.tcp_mtu_probing", 1)
    try:
        result = transfer(
            fresh.a, fresh.b, PORT, version=version, size=sized(5e6, 20e6), connections=2, deadline=DEADLINE
        )
        assert result.differences == []
    finally:
        fresh.router.run([tables, "-w", "-D", *silence])
        for node in (fresh.a, fresh.b):
            node.sysctl("net.ipv4.tcp_mtu_probing", 0)


@pytest.mark.parametrize("version", [4, 6])
def test_what_was_learnt_survives_restarts(fresh, version):
    """Else each daemon would take what its predecessor had told the kernel for the path's own, and tell it less."""
    shape(fresh, SHAPES["singles"])
    fresh.net.narrow(1400)
    for number in range(sized(2, 4)):
        result = transfer(fresh.a, fresh.b, PORT, version=version, size=500e3, deadline=DEADLINE)
        assert result.differences == []
        for node, peer in ((fresh.a, fresh.b.address(version)), (fresh.b, fresh.net.public(version))):
            assert route_mtu(node, peer) == 1400 - OVERHEAD, number
            node.restart()
        with fresh.wire() as wire:
            result = transfer(fresh.a, fresh.b, PORT, version=version, size=500e3, deadline=DEADLINE)
        assert result.differences == []
        longest = max(len(segment.payload) for segment in wire.segments(PORT))
        # what the kernel was told it tells the peers of new connections, too
        assert longest == 1400 - OVERHEAD - (40 if version == 4 else 60) - 12


@pytest.mark.parametrize("version", [4, 6])
def test_connections_of_several_classes_share_what_the_kernel_was_told(fresh, echo, version):
    """Else each would take for the path's own what another had the kernel told, and tell it less, by turns."""
    shape(fresh, SHAPES["singles"])
    with connected(fresh, version) as one, connected(fresh, version, traffic_class=0x20) as other:
        fresh.net.narrow(1400)
        for sock in (one, other, one, other):
            sock.sendall(bytes(50_000))
            assert receive(sock, 50_000) == bytes(50_000)
            assert route_mtu(fresh.a, fresh.b.address(version)) == 1400 - OVERHEAD


@pytest.mark.parametrize("version", [4, 6])
def test_other_errors_are_soft_and_tell_why(fresh, echo, version):
    """A connection outlives a route that is gone for a moment; if it does not come back the socket knows the reason."""
    with connected(fresh, version) as sock:
        before, errors = counters(fresh.a), unreachables(fresh.a, version)
        with unreachable(fresh, version):
            sock.sendall(b"meanwhile")
            wait_for(lambda: unreachables(fresh.a, version) > errors, "an error from the router")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)  # b has nothing to repeat, which would be news
        assert receive(sock, 9) == b"meanwhile"
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, 3000)
        with unreachable(fresh, version):
            sock.sendall(b"never")
            with pytest.raises(OSError) as ended:
                sock.recv(10)
        assert ended.value.errno == {4: errno.EHOSTUNREACH, 6: errno.ENETUNREACH}[version], "not a timeout"
        assert counters(fresh.a)["OutOfWindowIcmps"] == before["OutOfWindowIcmps"]
    assert "stray-icmp" not in fresh.a.status()["refused"]


@contextlib.contextmanager
def unreachable(pair, version):
    """The router knows no way to b, and says so."""
    route = (f"-{version}", "route", "replace", "unreachable", pair.b.address(version))
    pair.router.ip(*route, *(("metric", 1) if version == 6 else ()))
    yield
    if version == 6:
        pair.router.ip("-6", "route", "delete", *route[3:], "metric", 1)
    pair.net.narrow(1500)


@pytest.mark.parametrize("version", [4, 6])
def test_forged_errors(fresh, echo, version):
    """Whoever does not know what is under way moves nothing, as with plain TCP."""
    with connected(fresh, version) as sock, fresh.wire() as wire:
        sock.sendall(b"something")
        assert receive(sock, 9) == b"something"
        own, other = (ends[:2] for ends in (sock.getsockname(), sock.getpeername()))
        wait_for(lambda: fresh.b.connections("encrypted"), "b to call it encrypted")
    last = [one for one in wire.segments(PORT) if one.destination_port == PORT][-1]
    edge = last.sequence + len(last.payload)
    # side b sees the router's address
    before, strays = route_mtu(fresh.a, other[0]), fresh.a.status()["refused"].get("stray-icmp", 0)
    wrong = [edge + distance for distance in (-1000, -1, 1, 1000, 2**31 - 1, 2**31, 2**31 + 1)]
    for seq in wrong:
        forge(fresh.router, own, other, seq, 1300)
    wait_for(lambda: fresh.a.status()["refused"].get("stray-icmp", 0) == strays + len(wrong), "all to be counted")
    assert route_mtu(fresh.a, other[0]) == before == 1500


def forge(router, source, destination, seq, mtu):
    """An error of the router's about a segment from `source` to `destination`."""
    if ":" in source[0]:
        ip, error = IPv6(src=router.address(6, "a"), dst=source[0]), ICMPv6PacketTooBig(mtu=mtu)
        quoted = IPv6(src=source[0], dst=destination[0])
    else:
        ip, error = IP(src=router.address(4, "a"), dst=source[0]), ICMP(type=3, code=4, nexthopmtu=mtu)
        quoted = IP(src=source[0], dst=destination[0], flags="DF")
    packet = ip / error / quoted / TCP(sport=source[1], dport=destination[1], seq=seq % 2**32, flags="PA") / bytes(600)
    with router.socket(socket.AF_INET6 if ":" in source[0] else socket.AF_INET, socket.SOCK_RAW, 255) as raw:
        if ":" in source[0]:
            raw.setsockopt(socket.IPPROTO_IPV6, 36, 1)  # IPV6_HDRINCL
        raw.sendto(bytes(packet), (source[0], 0))


# ------------------------------------------------------------ what is asked


@contextlib.contextmanager
def connected(pair, version, traffic_class=0):
    """A connection of a's that has carried something."""
    with pair.a.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as sock:
        sock.settimeout(DEADLINE)
        option = (socket.IPPROTO_IPV6, socket.IPV6_TCLASS) if version == 6 else (socket.IPPROTO_IP, socket.IP_TOS)
        sock.setsockopt(*option, traffic_class)
        sock.connect((pair.b.address(version), PORT))
        sock.sendall(b"hello")
        assert receive(sock, 5) == b"hello"
        yield sock


def receive(sock, size):
    got = b""
    while len(got) < size:
        got += sock.recv(size - len(got))
    return got


def goes_on(pair, size):
    """Wait until so many bytes more have come, at both ends together."""

    def carried():
        return pair.a.received() + pair.b.received()

    before = carried()
    wait_for(lambda: carried() > before + size, "more of it")


def route_mtu(node, address):
    """What the kernel holds the path to an address for."""
    v6 = ":" in address
    with node.socket(socket.AF_INET6 if v6 else socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((address, 9))
        return probe.getsockopt(socket.IPPROTO_IPV6 if v6 else socket.IPPROTO_IP, 24 if v6 else 14)


def counters(node):
    """The kernel's TcpExt counters."""
    with node.enter():
        lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("TcpExt:"))
    return {name: int(value) for name, value in zip(names, values, strict=True)}


def unreachables(node, version):
    """Errors of that kind that have come."""
    with node.enter():
        if version == 6:
            rows = Path("/proc/thread-self/net/snmp6").read_text().split()
            return int(rows[rows.index("Icmp6InDestUnreachs") + 1])
        lines = Path("/proc/thread-self/net/snmp").read_text().splitlines()
    names, values = (line.split()[1:] for line in lines if line.startswith("Icmp:"))
    return int(dict(zip(names, values, strict=True))["InDestUnreachs"])
