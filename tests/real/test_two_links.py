"""Hosts joined by two links: what the daemon sends itself leaves by the link that the connection's own packets take.

Nothing of a connection may be on the other link, whatever it is that chose the link: a rule for its address, its mark,
its class or its user, a device that its socket is bound to, or the scope of a link-local address.
"""

import contextlib
import os
import re
import shutil
import signal
from collections import defaultdict

import pytest

from lab import Capture, transfer, two_links, wait_for
from lab.packets import RST, parse
from tests.helpers.nodes import PORT, needs_lab, sized
from tests.helpers.pairs import encrypted
from tests.helpers.wire import assert_encrypted

pytestmark = needs_lab

SERVICE = {4: "10.66.9.1", 6: "fd66:9::1"}
SOURCE = {4: "10.66.1.1", 6: "fd66:1::1"}

#: How a connection comes to use `eth1`: a rule for table 77, and options of the socket.
WAYS = {
    "address": (lambda version: ("from", SOURCE[version]), lambda version: ("--source", SOURCE[version])),
    "mark": (lambda version: ("fwmark", "0x4d"), lambda version: ("--mark", 0x4D)),
    "class": (lambda version: ("tos", "0x10"), lambda version: ("--tos", 0x10)),
    "user": (lambda version: ("uidrange", "1234-1234"), lambda version: ("--uid", 1234)),
    "device": (lambda version: ("oif", "eth1"), lambda version: ("--device", "eth1")),
    "port": (lambda version: ("ipproto", "tcp", "dport", PORT), lambda version: ()),
    "scope": (None, lambda version: ()),
}


#: Counts packets to the port whose priority is 5, and whose is not; but resets have none where the socket is gone.
COUNT_PRIORITIES = f"""
table inet lab {{
    chain leaving {{
        type filter hook postrouting priority 0;
        meta priority 0:5 tcp dport {PORT} tcp flags & rst == 0 counter
        meta priority != 0:5 tcp dport {PORT} tcp flags & rst == 0 counter
    }}
}}
"""


@pytest.fixture(scope="module")
def pair():
    with two_links() as net, encrypted(net) as pair:
        # without timestamps full batches outgrow a verdict over IPv4 too
        pair.a.sysctl("net.ipv4.tcp_timestamps", 0)
        yield pair


@contextlib.contextmanager
def policy(pair, version, way):
    """a uses `eth1` where `way` says so; gives what to dial and the options to dial with."""
    rule, options = WAYS[way]
    if rule is None:
        yield "fe80::b%eth1", options(version)
        pair.settle()
        return
    family = f"-{version}"
    # ports are not what a raw socket can be routed by: the device is, where the main table knows the way there, too
    spare = ("default", "via", "10.66.1.2" if version == 4 else "fd66:1::2", "dev", "eth1", "metric", 5000)
    pair.a.ip(family, "rule", "add", *rule(version), "lookup", 77, "pref", 100)
    if way == "port":
        pair.a.ip(family, "route", "add", *spare)
    try:
        yield SERVICE[version], options(version)
        pair.settle()
    finally:
        pair.a.ip(family, "rule", "delete", "pref", 100)
        if way == "port":
            pair.a.ip(family, "route", "delete", *spare)


def strays(wrong, version):
    """What a sent by the wrong link."""
    sent = [one for one in wrong.segments(PORT) if one.source != SERVICE[version]]
    return [one for one in sent if (":" in one.source) == (version == 6)]


CASES = [(version, way) for way in WAYS for version in (4, 6) if (version, way) != (4, "scope")]


@pytest.mark.parametrize(("version", "way"), CASES)
def test_all_of_a_connection_takes_the_same_link(pair, version, way):
    """Batches that outgrow a verdict, and records that wait for a small window: injected packets of both kinds."""
    with policy(pair, version, way) as (address, options):
        for size, rcvbuf in ((sized(8e6, 100e6), 0), (sized(1e6, 5e6), 8192)):
            with Capture(pair.b.host, "eth0") as wrong, Capture(pair.b.host, "eth1") as right:
                result = transfer(
                    pair.a, pair.b, PORT, address=address, size=size, server_size=1000, rcvbuf=rcvbuf, dialling=options
                )
            assert result.differences == []
            # a kernel's reset for a socket that is gone goes where the destination alone leads
            stray = [one for one in strays(wrong, version) if not one.flags & RST]
            assert not stray, (len(stray), stray[0])
            assert not right.dropped, "the recorder was too slow"
            assert_encrypted(right)
        assert pair.a.status()["queue"]["injections"], "nothing was injected: this test shows nothing"
        failed = [line for line in pair.a.log().splitlines() if "could not be injected" in line]
        assert not pair.a.status()["queue"]["injections_failed"], failed


@pytest.mark.parametrize(("version", "way"), CASES)
def test_the_far_side_is_told_of_a_restart_by_that_link(pair, echo, version, way):
    """The next daemon resets what its predecessor had encrypted, so that the application there hears of it at once."""
    with policy(pair, version, way) as (address, options):
        client = pair.a.python("lab.apps", "ping", address, PORT, "--count", 10**6, *options)
        wait_for(lambda: pair.a.connections("encrypted") and pair.b.connections("encrypted"), "a connection", 10)
        os.kill(client.pid, signal.SIGSTOP)  # it sends nothing that could be answered
        try:
            with Capture(pair.b.host, "eth0") as wrong, Capture(pair.b.host, "eth1") as right:
                pair.a.restart()
                echo.wait_for('"ConnectionResetError"')
        finally:
            os.kill(client.pid, signal.SIGCONT)
        assert not strays(wrong, version)
        assert any(one.flags & RST and one.destination_port == PORT for one in right.segments(PORT))


@pytest.mark.parametrize("version", [4, 6])
def test_of_two_equal_links_one_carries_all_of_a_connection(pair, version):
    """Equal routes are chosen by a hash over the ports, which a raw socket does not have."""
    family, gateways = f"-{version}", ("10.66.0.2", "10.66.1.2") if version == 4 else ("fd66::2", "fd66:1::2")
    hops = [word for number in (0, 1) for word in ("nexthop", "via", gateways[number], "dev", f"eth{number}")]
    pair.a.sysctl(f"net.ipv{version}.fib_multipath_hash_policy", 1)
    pair.a.ip(family, "route", "replace", "default", *hops)
    try:
        with Capture(pair.b.host, "eth0") as one, Capture(pair.b.host, "eth1") as other:
            result = transfer(
                pair.a,
                pair.b,
                PORT,
                address=SERVICE[version],
                size=sized(5e6, 50e6),
                server_size=1000,
                connections=8,
                dialling=("--source", "10.66.8.1" if version == 4 else "fd66:8::1"),
            )
        assert result.differences == []
    finally:
        if version == 6:
            pair.a.ip(family, "route", "flush", "exact", "default")
        pair.a.route("default", gateways[0])
    links = [{segment.source_port for segment in strays(link, version)} for link in (one, other)]
    assert links[0] and links[1], "all by chance on one link"
    assert not links[0] & links[1]


@pytest.mark.skipif(not shutil.which("nft"), reason="needs nft to see the priority of packets")
@pytest.mark.parametrize("version", [4, 6])
def test_class_flow_label_and_priority(pair, echo, version):
    """A connection's packets, those that the daemon sends itself included, look alike and wait in the same queue."""
    pair.a.run(["nft", "-f", "-"], stdin=COUNT_PRIORITIES)
    options = ("--source", SOURCE[version], "--tos", 0x48, "--priority", 5)
    echo.stop()
    with policy(pair, version, "address") as (address, _), Capture(pair.b.host, "eth1") as wire:
        for size, rcvbuf in ((sized(5e6, 50e6), 0), (sized(1e6, 5e6), 8192)):
            result = transfer(
                pair.a, pair.b, PORT, address=address, size=size, server_size=1000, rcvbuf=rcvbuf, dialling=options
            )
            assert result.differences == []
        wait_for(lambda: not pair.a.connections("encrypted"), "those to end", 10)
        echo = pair.b.python("lab.apps", "echo", PORT)
        echo.wait_for('"listening"')
        client = pair.a.python("lab.apps", "ping", address, PORT, "--count", 10**6, *options)
        wait_for(lambda: pair.a.connections("encrypted"), "a connection", 10)
        pair.a.restart()
        echo.wait_for('"ConnectionResetError"')
        client.stop()
        echo.stop()
        counted = pair.a.run(["nft", "list", "table", "inet", "lab"]).stdout
    pair.a.run(["nft", "delete", "table", "inet", "lab"])
    frames = [frame for _, raw in wire.frames() if (frame := parse(bytes(raw))) and frame.ports[1] == PORT]
    # what answers for a socket that is gone has the class of what it answers
    last = next(frame.ports for frame in reversed(frames) if frame.payload)
    frames = [frame for frame in frames if frame.ports == last or not frame.flags & RST]
    assert any(frame.flags & RST for frame in frames)
    classes = {int.from_bytes(frame.ip[:2]) >> (4 if version == 6 else 0) & 0xFC for frame in frames}
    assert classes == {0x48}
    if version == 6:
        labels = defaultdict(set)
        for frame in frames:
            if frame.payload:
                labels[frame.ports].add(int.from_bytes(frame.ip[:4]) & 0xFFFFF)
        assert all(len(some) == 1 and 0 not in some for some in labels.values()), labels
    of_five, of_others = (int(count) for count in re.findall(r"packets (\d+)", counted))
    assert of_five > 100 and not of_others, counted
