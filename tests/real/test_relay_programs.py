"""More programs that end TCP on their way: Docker's proxy, `ssh -L`, the network of rootless containers; and relays at
both ends."""

from __future__ import annotations

import socket

import pytest

from lab import Capture, measure, start, transfer, two_hosts, wait_for
from lab.relays import ROOTLESS
from mcencrypt.store.keys import create_network_key
from tests.helpers.nodes import PACING, PORTS, Node, needs_lab, sized, start_all
from tests.helpers.pairs import encrypted
from tests.helpers.relays import Leg, both_ways, needs_relays, skip_without, start_relay
from tests.helpers.wire import assert_encrypted

pytestmark = [needs_lab, needs_relays]

PORT = PORTS[0]
SIZE = sized(2e6, 1e8)


# -- Docker's proxy, and ssh


@pytest.fixture(scope="module", params=["docker-proxy", "ssh"])
def behind(request):
    """a, the program on a host between, and b."""
    skip_without(request.param)
    with two_hosts(nat=False) as net, encrypted(net, b={"relayed": ["10.66.2.1"]}) as pair:
        start_relay(request.param, net.router, Leg(net.router.address(4, "a"), PORT), Leg(net.b.v4, PORT))
        yield pair


@pytest.mark.parametrize("mode", ["both", "half-close", "server-first"])
def test_streams_pass_and_nothing_is_readable(behind, mode):
    with Capture(behind.net.router, "a") as one, Capture(behind.net.router, "b") as other:
        entrance = behind.net.router.address(4, "a")
        result = transfer(behind.a, behind.b, PORT, address=entrance, mode=mode, size=SIZE, deadline=120)
        assert result.differences == []
    for wire in (one, other):
        assert_encrypted(wire, PORT)
    assert {one["carrier"] for node in (behind.a, behind.b) for one in node.status()["connections"]} <= {"stream"}


def test_messages_back_and_forth(behind):
    entrance = behind.net.router.address(4, "a")
    assert measure(behind.a, behind.b, PORT, "messages", "--count", 200, address=entrance)["identical"]


# -- rootless containers


@pytest.fixture(scope="module", params=ROOTLESS)
def rootless(request):
    """a on a host, and b in a namespace whose only way out is such a program, which publishes its port on that host."""
    skip_without(request.param)
    with two_hosts(nat=False) as net:
        inside = net.lab.host("inside")
        program = ROOTLESS[request.param](net.b, inside, PORT)
        key = net.lab.directory / "network.key"
        create_network_key(key)
        # what dials in comes with its own address, and what dials out with that of the host
        nodes = Node(net.a, key, relayed=[net.b.v4]), Node(inside, key, relayed=[net.a.v4])
        start_all(nodes)
        yield net, *nodes, request.param
        assert program.exit_code is None


@pytest.mark.parametrize("dialler", ["inside", "outside"])
def test_a_container_without_root_talks_encrypted(rootless, dialler):
    net, outside, inside, kind = rootless
    if dialler == "inside" and kind == "slirp4netns":
        # what is in a SYN it does not acknowledge, and passes on: the first attempt is refused, and then it is known
        with pytest.raises(ConnectionError), inside.socket() as first, listening(outside):
            first.settimeout(20)
            first.connect((net.a.v4, PORT))
            first.sendall(b"hello")
            assert first.recv(100)
    ends, address = ((inside, outside), net.a.v4) if dialler == "inside" else ((outside, inside), net.b.v4)
    # pasta passes half-closed connections badly: without encryption the one that waits gets the last bytes again
    with Capture(net.router, "b") as wire:
        assert transfer(*ends, PORT, address=address, size=SIZE, mode="closing", deadline=120).differences == []
    assert_encrypted(wire, PORT)


def listening(node):
    made = node.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    made.bind((node.v4, PORT))
    made.listen()
    return made


# -- relays at both ends


KINDS = [("haproxy", "socat"), ("socat", "haproxy")]
RELAYED = {"a": {"relayed": ["10.66.1.1"]}, "b": {"relayed": ["10.66.2.1"]}}


@pytest.mark.parametrize("kinds", KINDS, ids="-".join)
def test_either_dials_the_other_through_two_relays_with_loss_on_both_legs(kinds):
    with both_ways() as net, encrypted(net, **RELAYED) as pair:
        net.start(kinds, PORT)
        net.lose(0.01)
        with Capture(net.ra, "inner") as one, Capture(net.rb, "inner") as other:
            for dialler, answerer, entrance in (
                (pair.a, pair.b, net.entrance_a),
                (pair.b, pair.a, net.entrance_b),
            ):
                result = transfer(dialler, answerer, PORT, address=entrance, size=SIZE, connections=2, deadline=240)
                assert result.differences == []
        for wire in (one, other):
            assert_encrypted(wire, PORT)


@pytest.mark.parametrize("which", ["beside the dialler", "beside the answerer"])
def test_a_relay_that_is_restarted_is_noticed_and_gone_through_again(which):
    with both_ways() as net, encrypted(net, **RELAYED) as pair:
        relays = net.start(("haproxy", "haproxy"), PORT)
        ending = relays[0] if which == "beside the dialler" else relays[1]
        running = start(pair.a, pair.b, PORT, address=net.entrance_a, endless=True, pacing=PACING, deadline=60)
        wait_for(lambda: pair.a.status()["totals"]["bytes_in"] > 1e6, "a transfer under way")
        ending.stop()
        result = running.result()
        assert result.client["errors"] and result.server["errors"]
        assert not any("in time" in error for end in (result.client, result.server) for error in end["errors"])
        if ending is relays[0]:
            start_relay("haproxy", net.ra, Leg("10.66.1.1", PORT), Leg("10.66.9.2", PORT))
        else:
            start_relay("haproxy", net.rb, Leg("10.66.9.2", PORT), Leg("10.66.2.2", PORT))
        assert transfer(pair.a, pair.b, PORT, address=net.entrance_a, size=1e5).differences == []


@pytest.mark.parametrize("who", ["a", "b"])
def test_a_daemon_that_is_restarted_is_noticed_at_both_ends(who):
    with both_ways() as net, encrypted(net, **RELAYED) as pair:
        net.start(("socat", "haproxy"), PORT)
        running = start(pair.a, pair.b, PORT, address=net.entrance_a, endless=True, pacing=PACING, deadline=60)
        wait_for(lambda: pair.a.status()["totals"]["bytes_in"] > 1e6, "a transfer under way")
        getattr(pair, who).restart()
        result = running.result()
        assert result.client["errors"] and result.server["errors"]
        assert not any("in time" in error for end in (result.client, result.server) for error in end["errors"])
        assert transfer(pair.a, pair.b, PORT, address=net.entrance_a, size=1e5).differences == []
