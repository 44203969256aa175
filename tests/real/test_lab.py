"""The lab itself, on the real kernel: a lab that lies makes every test built on it worthless."""

import os
import random
import re
import signal
import socket
import subprocess
import sys
import time

import pytest

from lab import (
    Capture,
    Lab,
    LabError,
    direct_pair,
    interrupted_pair,
    lan,
    measure,
    missing,
    namespace,
    transfer,
    two_hosts,
    wait_for,
)
from lab.behaviours import Chain, Corrupt, Drop, Duplicate, Join, Record, Reorder, Split, Truncate
from lab.nursery import importable
from lab.packets import SYN
from lab.streams import MODES

pytestmark = pytest.mark.skipif(missing() is not None, reason=missing() or "")

MARKER = b"INVOICE-4711"


@pytest.fixture(scope="module")
def net():
    with two_hosts(tso=False) as built:
        yield built


@pytest.fixture(scope="module")
def boxed():
    with interrupted_pair() as built:
        yield built


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mode", MODES)
def test_streams_cross_the_nat_router_unharmed(net, version, mode):
    result = transfer(net.a, net.b, 7331, version=version, mode=mode, size=3e6, server_size=1e6)
    assert result.differences == []
    assert (result.client["sent"], result.client["received"]) == (3_000_000, 1_000_000)
    assert net.router.invalid_count() == 0
    assert any(
        f"dst={net.public(version)} " in line or f"dst={net.public(version)}/" in line
        for line in net.router.connections()
    ), "masqueraded"


def test_mixed_sizes_on_many_connections(net):
    result = transfer(net.a, net.b, 7332, mixed=True, connections=60)
    assert result.differences == []
    assert len(result.server["connections"]) == 60


@pytest.mark.parametrize("version", [4, 6])
def test_the_outside_dials_in_by_route_and_by_published_port(net, version):
    net.router.publish(7340 + version, net.a)
    for address in (net.a.address(version), net.public(version)):
        assert transfer(net.b, net.a, 7340 + version, address=address, size=1e5).differences == []
    assert net.router.invalid_count() == 0


def test_a_packet_of_no_connection_is_counted_and_dropped(net):
    from scapy.layers.inet import IP, TCP

    before = net.router.invalid_count()
    packet = bytes(IP(src=net.a.v4, dst=net.b.v4) / TCP(sport=5, dport=6, flags="A", seq=1, ack=1) / b"stray")
    with net.a.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        raw.sendto(packet, (net.b.v4, 0))
    wait_for(lambda: net.router.invalid_count() == before + 1, "the router to count it")
    assert net.router.conntrack_invalid() >= 1


def test_loss_loses_and_tcp_repairs_it():
    with two_hosts(tso=False) as net:
        net.router.loss(0.05)
        assert transfer(net.a, net.b, 7331, version=6, size=2e6).differences == []
        lost = net.router.loss_count()
        assert lost > 20
        net.router.loss(0)
        assert net.router.loss_count() == 0
        net.a.lose(0.05, "eth0")
        assert transfer(net.a, net.b, 7331, size=2e6).differences == []
        assert net.a.lost("eth0") > 20
        assert net.router.invalid_count() == 0
        with net.router.cut("b"), net.a.socket() as dialling:
            dialling.settimeout(0.3)
            with pytest.raises(TimeoutError):
                dialling.connect((net.b.v4, 7331))


def test_the_rate_is_what_was_asked_for():
    with two_hosts() as net:
        net.router.rate(100e6)
        assert measure(net.a, net.b, 7331, "blast", "--seconds", 1)["gbps"] < 101e-3
        shown = net.router.run(["tc", "-s", "qdisc", "show", "dev", "b"]).stdout
        assert "rate 100Mbit" in shown
        # it was the bucket that it waited for
        assert int(re.search(r"overlimits (\d+)", shown)[1]) > 100, shown
        net.router.unshape("a")
        net.router.unshape("b")
        assert "tbf" not in net.router.run(["tc", "qdisc", "show"]).stdout
        assert measure(net.a, net.b, 7331, "blast", "--seconds", 0.5)["finished"] == 1


def test_hosts_are_as_they_were_asked_for():
    with direct_pair(mtu=1400, tso=False, gso=False, gro=False) as net:
        shown = net.a.run(["ethtool", "-k", "eth0"]).stdout
        for feature in (
            "tcp-segmentation-offload",
            "generic-segmentation-offload",
            "generic-receive-offload",
        ):
            assert f"{feature}: off" in shown
        assert "mtu 1400" in net.a.ip("link", "show", "eth0")
        assert net.b.sysctl("net.ipv4.tcp_congestion_control") == "cubic"
        with Capture(net.b, "eth0") as wire:
            assert transfer(net.a, net.b, 7331, version=6, size=2e5).differences == []
        longest = max(len(segment.payload) for segment in wire.segments(7331))
        assert longest == 1400 - 40 - 32
        assert wire.dropped == 0


def test_a_lan_reaches_everybody():
    with lan(3) as hosts:
        for dialling, listening in ((0, 2), (2, 1)):
            assert transfer(hosts[dialling], hosts[listening], 7331, version=6, size=1e5).differences == []


def test_measurements_measure(net):
    begun = time.monotonic()
    median = measure(net.a, net.b, 7350, "ping", "--count", 200)["median_us"]
    # half of them took as long or longer
    assert 5 < median < (time.monotonic() - begun) * 1e6 / 100
    assert measure(net.a, net.b, 7350, "connect", "--count", 20, version=6)["first_byte"]["median_us"] > 5
    assert measure(net.a, net.b, 7350, "messages")["identical"]


def test_a_tiny_receive_buffer(net):
    before = net.router.invalid_count()
    assert transfer(net.a, net.b, 7351, size=2e5, rcvbuf=2304).differences == []
    assert net.router.invalid_count() == before


@pytest.mark.parametrize(
    "name, behaviour, version",
    [
        ("split", lambda dice: Split(dice=dice), 4),
        ("split and join", lambda dice: Chain(Split(dice=dice, largest=300), Join()), 6),
        ("join", lambda dice: Join(), 4),
        ("reorder", lambda dice: Reorder(0.05, dice=dice), 6),
        ("duplicate", lambda dice: Duplicate(0.1, dice=dice), 4),
        ("drop", lambda dice: Drop(0.02, dice=dice), 6),
        ("truncate", lambda dice: Truncate(0.02, dice=dice), 4),
        ("noise", lambda dice: Corrupt(0.02, fix_checksum=False, dice=dice), 6),
    ],
)
def test_tcp_survives_what_a_middlebox_may_do(boxed, name, behaviour, version):
    boxed.box.behaviour = acting = behaviour(random.Random(3))
    assert transfer(boxed.a, boxed.b, 7331, version=version, size=1e6).differences == []
    assert sum(getattr(each, "count", 0) for each in getattr(acting, "behaviours", (acting,))) > 0 or name == "join"


def test_joining_makes_fewer_segments_of_many(boxed):
    acting = Join()
    boxed.box.behaviour = Chain(Split(largest=100), acting)
    with Capture(boxed.b, "eth0") as wire:
        assert transfer(boxed.a, boxed.b, 7331, size=2e5).differences == []
    assert acting.count > 1000
    assert sum(bool(segment.payload) for segment in wire.segments(7331)) < acting.count
    assert boxed.box.refused == 0


def test_an_attackers_flipped_bit_is_read_by_a_plain_application(boxed):
    boxed.box.behaviour = acting = Corrupt(0.05)
    assert transfer(boxed.a, boxed.b, 7331, size=1e6).differences
    assert acting.count > 0


def test_recorded_frames_can_be_replayed(boxed):
    boxed.box.behaviour = record = Record(lambda segment: segment.flags == SYN)
    assert transfer(boxed.a, boxed.b, 7331, size=1000).differences == []
    [(toward, frame)] = record.frames
    with Capture(boxed.b, "eth0") as wire:
        boxed.box.inject(frame, toward)
        boxed.box.inject(frame, toward, 0.01)
        wait_for(lambda: sum(segment.flags == SYN for segment in wire.segments(7331)) == 2, "both replays")


def test_a_capture_finds_markers_of_talking_nodes_and_a_reset_makes_them_redial(net):
    with Capture(net.router, "a") as inside, Capture(net.router, "b") as outside:
        b = net.b.python("lab.node", "--name", "b", "--listen", 7360, "--blocks-every", 0.2, "--block-size", 2e6)
        b.wait_for('"listening"')
        a = net.a.python("lab.node", "--name", "a", "--connect", f"[{net.b.v6}]:7360", "--items-every", 0.1)
        a.wait_for('"block"')
        b.wait_for('"item"')
        net.a.run(["ss", "-K", "dport", "=", "7360"])
        wait_for(lambda: sum(event["event"] == "ready" for event in a.events()) == 2, "the redial")
        assert (a.stop(), b.stop()) == (0, 0)
    published = {event["sha256"] for event in b.events() if event["event"] == "published"}
    received = {event["sha256"] for event in a.events() if event["event"] == "block"}
    assert received and received <= published
    for wire in (inside, outside):
        found = wire.search([MARKER, b"version\0", b"NEVER-SENT"])
        assert found[MARKER] > 1000
        assert found[b"version\0"] >= 4
        assert found[b"NEVER-SENT"] == 0
        assert wire.dropped == 0


def test_nothing_is_left_of_a_lab_even_of_processes_that_went_their_own_way():
    with direct_pair() as net:
        net.a.run(["setsid", "-f", "sleep", "301"])
        [pid] = namespace.members(net.a.namespace)
        spawned = net.b.spawn(["sleep", "302"])
        directory = net.lab.directory
        names = [host.namespace for host in net.lab.hosts]
    assert spawned.exit_code is not None
    wait_for(lambda: namespace.started(pid) == 0, "the daemon to be gone")
    assert not directory.exists()
    assert not any((namespace.MOUNTS / name).exists() for name in names)


def test_a_killed_lab_is_swept_up_by_the_next():
    program = (
        "from lab import direct_pair\nimport time\n"
        "with direct_pair() as net:\n    print(net.a.namespace, net.lab.directory, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, env=os.environ | importable()
    ) as child:
        name, directory = child.stdout.readline().split()
        assert (namespace.MOUNTS / name).exists()
        child.send_signal(signal.SIGKILL)
    with Lab():
        # this one has swept, or another that was made at this moment is about to have
        wait_for(lambda: not (namespace.MOUNTS / name).exists(), "the namespace to go")
        wait_for(lambda: not os.path.exists(directory), "the directory to go")


def test_the_calling_thread_is_itself_again_after_a_visit(net):
    home = os.stat("/proc/thread-self/ns/net").st_ino
    with pytest.raises(ZeroDivisionError), net.a.enter():
        assert os.stat("/proc/thread-self/ns/net").st_ino != home
        1 / 0  # noqa: B018
    assert os.stat("/proc/thread-self/ns/net").st_ino == home


def test_failures_say_what_failed(net):
    with pytest.raises(LabError, match=r"ip route.*exit"):
        net.a.run(["ip", "route", "add", "nonsense"])
    with pytest.raises(LabError, match="not installed"):
        net.a.spawn(["no-such-program"])
    with pytest.raises(LabError, match="ended with 3"):
        net.a.spawn([sys.executable, "-c", "import sys; sys.exit(3)"]).wait_for("never")
    with pytest.raises(LabError, match=r"gave up after 0\.1 s"):
        net.a.spawn(["sleep", "300"]).wait_for("never", 0.1)
