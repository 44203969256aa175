"""Sizes at which netlink, GSO and IP have their limits."""

import select
import socket
import struct
import time

import pytest

from lab import PATIENCE, Capture, Lab, direct_pair, measure, transfer
from mcencrypt.core.verdict import ACCEPT
from tests.helpers.nodes import PORT, needs_lab, sized
from tests.helpers.pairs import encrypted
from tests.helpers.wire import assert_encrypted

pytestmark = needs_lab

QUEUE = 71


def udp(size):
    """An IPv4 packet of that many bytes from 127.0.0.1 to its port 5000, made by an oracle."""
    from scapy.layers.inet import IP, UDP

    return bytes(IP(src="127.0.0.1", dst="127.0.0.1") / UDP(sport=5001, dport=5000) / (b"R" * (size - 28)))


@pytest.mark.parametrize(("size", "passes"), [(65531, True), (65532, False), (65535, False)])
def test_a_verdict_that_netlink_cannot_carry_never_lets_the_original_pass(size, passes):
    from mcencrypt.kernel.queue import Queue

    with Lab() as lab:
        host = lab.host("h")
        rule = ["-o", "lo", "-p", "udp", "--dport", 5000, "-m", "length", "--length", "0:99"]
        host.run(["iptables", "-t", "raw", "-A", "OUTPUT", *rule, "-j", "NFQUEUE", "--queue-num", QUEUE])
        with host.enter():
            queue = Queue(QUEUE, lambda *_: udp(size))
        with (
            host.socket(kind=socket.SOCK_DGRAM) as receiver,
            host.socket(kind=socket.SOCK_DGRAM) as sender,
        ):
            receiver.bind(("127.0.0.1", 5000))
            receiver.settimeout(0.3)
            sender.sendto(b"original", ("127.0.0.1", 5000))
            assert select.select([queue], [], [], PATIENCE)[0]
            queue.ready()
            if passes:
                assert receiver.recv(70000) == b"R" * (size - 28)
                assert queue.bad_verdicts == 0
            else:
                with pytest.raises(TimeoutError):
                    receiver.recv(70000)
                assert queue.bad_verdicts == 1
        queue.close()


def test_a_packet_that_is_let_through_arrives_as_it_was():
    from mcencrypt.kernel.queue import Queue

    with Lab() as lab:
        host = lab.host("h")
        rule = ["-o", "lo", "-p", "udp", "--dport", 5000]
        host.run(["iptables", "-t", "raw", "-A", "OUTPUT", *rule, "-j", "NFQUEUE", "--queue-num", QUEUE])
        with host.enter():
            queue = Queue(QUEUE, lambda *_: ACCEPT)
        with (
            host.socket(kind=socket.SOCK_DGRAM) as receiver,
            host.socket(kind=socket.SOCK_DGRAM) as sender,
        ):
            receiver.bind(("127.0.0.1", 5000))
            receiver.settimeout(PATIENCE)
            sender.sendto(b"original", ("127.0.0.1", 5000))
            assert select.select([queue], [], [], PATIENCE)[0]
            queue.ready()
            assert receiver.recv(100) == b"original"
        queue.close()


@pytest.mark.parametrize("timestamps", [1, 0])
@pytest.mark.parametrize("version", [4, 6])
def test_full_batches(version, timestamps):
    """64 KB of the socket's and our overhead are more than one packet; what does not fit must not be a loss."""
    size = sized(50e6, 1e9)
    with direct_pair() as net, encrypted(net) as pair:
        for node in (pair.a, pair.b):
            node.sysctl("net.ipv4.tcp_timestamps", timestamps)
        with Capture(pair.b.host, "eth0", snaplen=128) as wire:
            result = transfer(
                pair.a, pair.b, PORT, version=version, mode="client-first", size=size, server_size=1, deadline=120
            )
        assert result.differences == []
        largest = largest_frame(wire)
        status = pair.a.status()
        print(
            f"IPv{version}, timestamps {timestamps}: {result.received_gbps[1]:.2f} Gbit/s, largest packet {largest}, "
            f"{status['totals']['retransmissions']} retransmissions, stall {result.longest_stall}"
        )
        assert largest > 60000
        # a batch cut off at the limit would be a loss every 64 KB
        assert status["totals"]["retransmissions"] < size / 64e3 / 5


def largest_frame(wire):
    """Length of the longest frame that passed, whatever was kept of it."""
    data = wire.path.read_bytes()
    at, largest = 24, 0
    while at + 16 <= len(data):
        kept, length = struct.unpack_from("<II", data, at + 8)
        largest = max(largest, length)
        at += 16 + kept
    return largest


@pytest.mark.parametrize("mtu", [576, 1280, 9000])
def test_links_of_other_sizes(mtu):
    with direct_pair() as net, encrypted(net) as pair:
        for node in (pair.a, pair.b):
            node.ip("link", "set", "dev", "eth0", "mtu", mtu)
        for version in (4, 6) if mtu >= 1280 else (4,):
            with pair.wire() as wire:
                assert transfer(pair.a, pair.b, PORT, version=version, size=3e6).differences == []
            assert_encrypted(wire)


def test_thousands_of_short_connections():
    with direct_pair() as net, encrypted(net) as pair:
        count = sized(300, 5000)
        begun = time.monotonic()
        measured = measure(pair.a, pair.b, PORT, "connect", "--count", count)
        print(f"{count} connections in {time.monotonic() - begun:.1f} s, {measured['established']}")
        pair.settle()
        for node in (pair.a, pair.b):
            assert node.status()["totals"]["connections"] == count
