"""Random loss in both directions: streams are identical, no connection breaks, and none waits long."""

import socket

import pytest

from lab import PATIENCE, measure, start, transfer, two_hosts, wait_for
from tests.helpers.nodes import FULL, PLAIN_PORT, PORT, needs_lab, sized
from tests.helpers.pairs import encrypted
from tests.helpers.timers import TimerRounds

pytestmark = needs_lab

OFFLOADS = {
    "batches-on-the-wire": {},
    "single-segments-on-the-wire": {"tso": False},
    "no-offloads": {"tso": False, "gso": False, "gro": False},
}


@pytest.fixture(scope="module", params=OFFLOADS.values(), ids=OFFLOADS.keys())
def lossy(request):
    with two_hosts(**request.param) as net, encrypted(net) as pair:
        yield pair


@pytest.fixture
def clean(lossy):
    yield lossy
    lossy.router.loss(0)
    assert lossy.router.invalid_count() == 0


# all combinations take too long for every day
@pytest.mark.parametrize(
    ("version", "loss"), [(4, 0.01), (6, 0.01), (4, 0.05), (6, 0.05)] if FULL else [(4, 0.01), (6, 0.05)]
)
def test_one_connection(clean, version, loss):
    clean.router.loss(loss)
    size = sized(3e6 if loss > 0.01 else 6e6, 1e9 if loss < 0.05 else 1e8)
    while True:
        result = transfer(clean.a, clean.b, PORT, version=version, size=size, deadline=900)
        assert result.differences == []
        if clean.router.loss_count():  # a few hundred batches may all come through
            break
    print(f"loss {loss}, {size:.0f} B: Gbit/s {result.received_gbps}, stall {result.longest_stall}")


@pytest.mark.parametrize(("version", "loss"), [(6, 0.01), (4, 0.05)])
def test_many_connections(clean, version, loss):
    connections = sized(10, 200)
    clean.router.loss(loss)
    # the second of mixed sizes is 8 MB, which alone takes 10 s with 5 % loss
    how = {"mixed": True} if FULL or loss < 0.05 else {"size": 1e5}
    result = transfer(clean.a, clean.b, PORT, version=version, connections=connections, deadline=600, **how)
    assert result.differences == []
    assert len(result.server["connections"]) == connections


def test_goodput_on_a_narrow_lossy_path():
    """No speed is asserted, only that it goes on as it does without us; the ratio is printed."""
    with two_hosts(tso=False) as net, encrypted(net) as pair:
        net.router.rate(100e6)
        net.router.loss(0.01)
        size = sized(10e6, 60e6)
        seconds, stalls, rounds = {}, {}, {}
        for name, port in (("plain", PLAIN_PORT), ("encrypted", PORT)):
            timers = TimerRounds(pair.a, pair.b)
            result = transfer(pair.a, pair.b, port, mode="client-first", size=size, server_size=1, deadline=300)
            assert result.differences == []
            rounds[name] = timers.count
            seconds[name], stalls[name] = result.client["seconds"], result.longest_stall
        print(
            f"100 Mbit/s, 1 % loss: plain {size * 8e-6 / seconds['plain']:.1f} Mbit/s, encrypted "
            f"{size * 8e-6 / seconds['encrypted']:.1f} Mbit/s, ratio {seconds['plain'] / seconds['encrypted']:.3f}, "
            f"longest stalls {stalls}, rounds of timers {rounds}"
        )
        assert net.router.invalid_count() == 0
        # a retransmission that is lost as well costs a round; more of them come of what is not repaired
        assert rounds["encrypted"] <= rounds["plain"] + 6


@pytest.mark.parametrize("version", [4, 6])
def test_many_small_messages_lost_once(version):
    """The kernel resends small segments joined into large ones, which our records do not follow."""
    sent = b"".join(number.to_bytes(4, "big") * 8 for number in range(60))
    with two_hosts(tso=False) as net, encrypted(net) as pair:
        # it would join small writes before they are sent at all
        pair.a.sysctl("net.ipv4.tcp_autocorking", 0)
        pair.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
        with pair.a.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as sock:
            sock.settimeout(PATIENCE)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.connect((pair.b.address(version), PORT))
            sock.sendall(b"first")
            assert sock.recv(100) == b"first"
            with net.router.cut("b"):
                for at in range(0, len(sent), 32):
                    sock.sendall(sent[at : at + 32])
                wait_for(lambda: net.router.loss_count("b") >= 10, "a window of messages to be lost")
            timers = TimerRounds(pair.a, pair.b)
            got = b""
            while len(got) < len(sent):
                got += sock.recv(65536)
        assert got == sent
        # a message, or two, for each round would be dozens of them
        print(f"60 messages echoed after {timers.count} rounds of timers")
        assert timers.count <= 6
        assert net.router.invalid_count() == 0


def test_a_path_that_is_cut_for_a_while():
    with two_hosts() as net, encrypted(net) as pair:
        running = start(pair.a, pair.b, PORT, endless=True)
        wait_for(lambda: any(one["bytes_out"] > 1e6 for one in pair.a.connections("encrypted")), "some data")
        with net.router.cut():
            wait_for(lambda: net.router.loss_count() >= 2, "packets to be lost")
        running.end()
        assert running.result().differences == []
        assert net.router.invalid_count() == 0


def test_a_route_with_a_smaller_mtu_than_the_link():
    """Nobody announces such an MTU in a SYN: full segments of the socket's size, plus ours, would not fit."""
    for version in (4, 6):
        with two_hosts(tso=False) as net, encrypted(net) as pair:
            for number, host in ((1, pair.a), (2, pair.b)):
                gateway = f"10.66.{number}.1" if version == 4 else f"fd66:{number}::1"
                host.route("default", gateway, "mtu", 1400)
            net.router.loss(0.02)
            rounds = []
            for port in (PLAIN_PORT, PORT):
                timers = TimerRounds(pair.a, pair.b)
                assert transfer(pair.a, pair.b, port, version=version, size=3e6).differences == []
                rounds.append(timers.count)
            assert rounds[1] <= rounds[0] + 6
            assert measure(pair.a, pair.b, PORT, "messages", "--size", 1378, version=version)["identical"]
