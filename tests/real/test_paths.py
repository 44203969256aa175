"""Paths that treat packets in unusual yet lawful ways, and sockets in unusual states."""

import contextlib
import random
import socket

import pytest

from lab import PATIENCE, direct_pair, measure, transfer, wait_for
from lab.behaviours import Chain, Delay, Drop, Duplicate, Join, Record, Reorder, Split, Truncate
from lab.packets import ACK, SYN, parse
from tests.helpers.nodes import PORT, PORTS, needs_lab, sized
from tests.helpers.pairs import encrypted
from tests.helpers.wire import assert_encrypted

pytestmark = needs_lab


def connected(pair, version=4, **options):
    """A socket of a, connected to what listens on b."""
    sock = pair.a.socket(socket.AF_INET6 if version == 6 else socket.AF_INET)
    sock.settimeout(PATIENCE)
    for name, value in options.items():
        level = socket.SOL_SOCKET if name.startswith("SO_") else socket.IPPROTO_TCP
        sock.setsockopt(level, getattr(socket, name), value)
    sock.connect((pair.b.address(version), PORT))
    return sock


def receive(sock, size):
    got = bytearray()
    while len(got) < size:
        more = sock.recv(1 << 20)
        assert more, f"ended after {len(got)} of {size} bytes"
        got += more
    return bytes(got)


BEHAVIOURS = {
    "splits": lambda dice: Split(largest=700, dice=dice),
    "splits-into-crumbs": lambda dice: Split(fraction=0.3, largest=30, dice=dice),
    "joins": lambda dice: Join(),
    "splits-and-joins": lambda dice: Chain(Split(largest=300, dice=dice), Join()),
    "reorders": lambda dice: Reorder(0.1, dice=dice),
    "duplicates": lambda dice: Duplicate(0.2, dice=dice),
    "delays": lambda dice: Delay(0.002, 0.004, dice),
    "truncates": lambda dice: Truncate(0.02, dice=dice),
    "everything": lambda dice: Chain(
        Drop(0.01, dice=dice), Split(0.3, dice=dice), Reorder(0.05, dice=dice), Duplicate(0.05, dice=dice), Join()
    ),
}


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("name", BEHAVIOURS)
def test_a_middlebox_that(boxed, name, version):
    boxed.box.behaviour = BEHAVIOURS[name](random.Random(11))
    result = transfer(boxed.a, boxed.b, PORT, version=version, size=sized(600e3, 5e6))
    assert result.differences == []
    print(f"{name}, IPv{version}: stall {result.longest_stall:.3f} s, {result.client['seconds']:.2f} s")


class LoseTheFirst:
    """Lose the first segment that `choose` picks."""

    def __init__(self, choose):
        self.choose, self.done = choose, False

    def __call__(self, frame, toward, now):
        segment = None if self.done else parse(frame)
        if segment is None or not self.choose(segment):
            return [(0.0, frame)]
        self.done = True
        return []


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("flags", [SYN, SYN | ACK], ids=["SYN", "SYN-ACK"])
def test_a_handshake_that_is_lost_once(boxed, version, flags):
    boxed.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
    boxed.box.behaviour = losing = LoseTheFirst(lambda segment: segment.flags & (SYN | ACK) == flags)
    with boxed.wire() as wire, connected(boxed, version) as sock:
        sock.sendall(b"after all")
        assert receive(sock, 9) == b"after all"
    assert losing.done
    assert_encrypted(wire)


def test_the_last_packet_of_the_handshake_is_lost(boxed):
    boxed.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
    boxed.box.behaviour = losing = LoseTheFirst(lambda segment: segment.flags == ACK and not segment.payload)
    with connected(boxed) as sock:
        sock.sendall(b"after all")
        assert receive(sock, 9) == b"after all"
    assert losing.done


@pytest.mark.parametrize("version", [4, 6])
def test_an_idle_connection_is_kept_alive(boxed, version):
    boxed.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
    with connected(boxed, version, SO_KEEPALIVE=1, TCP_KEEPIDLE=1, TCP_KEEPINTVL=1, TCP_KEEPCNT=2) as sock:
        sock.sendall(b"before")
        assert receive(sock, 6) == b"before"
        boxed.box.behaviour = record = Record(lambda segment: not segment.payload)
        # each probe is answered, or the second in a row without an answer would end the connection
        wait_for(lambda: sum(toward == "a" for toward, _ in record.frames) >= 4, "probes and answers")
        sock.sendall(b"afterwards")
        assert receive(sock, 10) == b"afterwards"


@pytest.mark.parametrize("version", [4, 6])
def test_a_reader_that_pauses_while_its_window_is_closed(boxed, version):
    with boxed.b.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 30_000)
        listener.bind((boxed.b.address(version), PORT))
        listener.listen()
        with connected(boxed, version) as sock, listener.accept()[0] as reader:
            sent = random.Random(2).randbytes(400_000)
            sock.setblocking(False)
            at = 0
            record = boxed.box.behaviour = Record(lambda segment: True)

            def it_stands():
                nonlocal at
                with contextlib.suppress(BlockingIOError):  # the socket's buffer may have grown meanwhile
                    while at < len(sent):
                        at += sock.send(sent[at : at + 65536])
                frames = [(toward, parse(frame)) for toward, frame in record.frames]
                sent_on = [segment for toward, segment in frames if toward == "b"]
                edges = [(one.sequence - sent_on[0].sequence + len(one.payload)) % 2**32 for one in sent_on]
                answers = [segment.window for toward, segment in frames if toward == "a"]
                return len(edges) > 3 and max(edges[:-3]) == max(edges) and answers[-2:] == [0, 0]

            # Probes, at growing intervals, and their answers. What was on its way as the window closed is sent again
            # in their place: whether there is some, the two kernels decide (tcp_retransmit_timer).
            wait_for(it_stands, "nothing new into a closed window")
            reader.settimeout(PATIENCE)
            got = bytearray()
            sock.settimeout(0.01)
            while len(got) < len(sent):
                if at < len(sent):
                    with contextlib.suppress(TimeoutError):
                        at += sock.send(sent[at : at + 4096])
                got += reader.recv(5000)
            assert bytes(got) == sent


@pytest.mark.parametrize("version", [4, 6])
def test_address_translation_on_the_hosts_themselves(version):
    tables, other = ("iptables", "10.66.0.9") if version == 4 else ("ip6tables", "fd66::9")
    with direct_pair() as net, encrypted(net) as pair:
        pair.lab.assign(pair.a.host, "eth0", f"{other}/{24 if version == 4 else 64}")
        match = ["-p", "tcp", "--dport", PORT]
        pair.a.host.run([tables, "-t", "nat", "-A", "POSTROUTING", *match, "-j", "SNAT", "--to-source", other])
        pair.b.host.run([tables, "-t", "nat", "-A", "PREROUTING", *match, "-j", "REDIRECT", "--to-ports", PORTS[1]])
        serving = pair.b.python("lab.apps", "echo", PORTS[1])
        serving.wait_for('"listening"')
        with pair.wire() as wire, connected(pair, version) as sock:
            sent = random.Random(1).randbytes(3_000_000)
            got = bytearray()
            sock.settimeout(0.005)
            at = 0
            while len(got) < len(sent):
                with contextlib.suppress(TimeoutError):
                    at += sock.send(sent[at : at + 65536]) if at < len(sent) else 0
                    got += sock.recv(1 << 20)
            assert bytes(got) == sent
        assert any(segment.source == other for segment in wire.segments(PORT))
        assert_encrypted(wire)


@pytest.mark.parametrize("setting", [("tcp_sack", 0), ("tcp_window_scaling", 0), ("tcp_timestamps", 0), ("tcp_ecn", 1)])
def test_other_settings_of_tcp(boxed, setting):
    name = f"net.ipv4.{setting[0]}"
    before = boxed.a.sysctl(name)
    boxed.a.sysctl(name, setting[1])
    try:
        boxed.box.behaviour = Chain(Drop(0.01, dice=random.Random(3)), Reorder(0.02, dice=random.Random(4)))
        for one, other in ((boxed.a, boxed.b), (boxed.b, boxed.a)):
            assert transfer(one, other, PORT, size=500e3).differences == []
    finally:
        boxed.a.sysctl(name, before)


def test_a_slow_reader_of_tiny_messages(boxed):
    assert measure(
        boxed.a, boxed.b, PORT, "messages", "--count", 2000, "--size", 4, "--rcvbuf", 4096, "--sndbuf", 4096
    )["identical"]
