"""Streams of all shapes between two nodes across a strict NAT router: the applications notice nothing."""

import pytest

from lab import measure, start, transfer
from lab.streams import MODES
from tests.helpers.nodes import PLAIN_PORT, PORT, needs_lab, sized
from tests.helpers.timers import TimerRounds
from tests.helpers.wire import assert_encrypted

pytestmark = needs_lab


@pytest.fixture(autouse=True)
def router_content(encrypted_pair):
    """The router, who only sees the wire, finds nothing wrong with it."""
    yield
    assert encrypted_pair.router.invalid_count() == 0
    # what is invalid in the direction toward a has the router's own address still, and is not forwarded
    assert encrypted_pair.router.conntrack_invalid() == 0


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mode", MODES)
def test_every_order_of_speaking(encrypted_pair, version, mode):
    result = transfer(encrypted_pair.a, encrypted_pair.b, PORT, version=version, mode=mode, size=3e6, server_size=1e6)
    assert result.differences == []
    assert (result.client["sent"], result.client["received"]) == (3_000_000, 1_000_000)


@pytest.mark.parametrize("version", [4, 6])
def test_one_connection_carries_much_in_both_directions(encrypted_pair, version):
    size = sized(30e6, 1e9)
    before = encrypted_pair.a.status()["totals"]
    result = transfer(encrypted_pair.a, encrypted_pair.b, PORT, version=version, size=size, deadline=600)
    assert result.differences == []
    after = encrypted_pair.a.status()["totals"]
    assert after["bytes_out"] - before["bytes_out"] == size
    # what was sent twice without need is counted twice here
    assert after["bytes_in"] - before["bytes_in"] >= size
    print(f"IPv{version}, {size:.0f} B each way: Gbit/s {result.received_gbps}, stall {result.longest_stall} s")


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("mode", ["both", "half-close"])
def test_many_connections_of_all_sizes_at_once(encrypted_pair, version, mode):
    connections = sized(40, 200)
    result = transfer(
        encrypted_pair.a,
        encrypted_pair.b,
        PORT,
        version=version,
        mode=mode,
        mixed=True,
        connections=connections,
        deadline=300,
    )
    assert result.differences == []
    assert len(result.server["connections"]) == connections


def test_connections_in_both_directions_at_the_same_time(encrypted_pair):
    running = [
        start(one, other, port, address=other.v4, mixed=True, connections=20)
        for one, other, port in (
            (encrypted_pair.a, encrypted_pair.b, PORT),
            (encrypted_pair.b, encrypted_pair.a, PORT),
        )
    ]
    assert [each.result().differences for each in running] == [[], []]


@pytest.mark.parametrize("version", [4, 6])
def test_every_byte_on_the_wire_is_handshake_or_record(encrypted_pair, version):
    with encrypted_pair.wire() as wire:
        result = transfer(encrypted_pair.a, encrypted_pair.b, PORT, version=version, size=5e6)
        measured = measure(encrypted_pair.a, encrypted_pair.b, PORT, "messages", version=version)
    assert result.differences == []
    assert measured["identical"]
    assert wire.dropped == 0
    assert_encrypted(wire)


def test_connections_are_set_up_and_small_messages_answered(encrypted_pair):
    connected = measure(encrypted_pair.a, encrypted_pair.b, PORT, "connect")
    pinged = measure(encrypted_pair.a, encrypted_pair.b, PORT, "ping")
    print(f"set-up {connected['established']}, first byte {connected['first_byte']}, ping {pinged}")
    assert connected["count"] == 200
    assert pinged["count"] == 2000


def test_the_status_counts_what_the_applications_sent(encrypted_pair):
    encrypted_pair.settle()
    before = [node.status()["totals"] for node in (encrypted_pair.a, encrypted_pair.b)]
    assert transfer(encrypted_pair.a, encrypted_pair.b, PORT, size=70_000, server_size=5).differences == []
    encrypted_pair.settle()
    after = [node.status()["totals"] for node in (encrypted_pair.a, encrypted_pair.b)]
    grown = [{key: new[key] - old[key] for key in new} for new, old in zip(after, before, strict=True)]
    for one, other in (grown, grown[::-1]):
        assert one["connections"] == 1
        assert one["bytes_out"] == other["bytes_in"]
        assert one["records_out"] == other["records_in"] > 0
        assert one["auth_failures"] == 0
    assert (grown[0]["bytes_out"], grown[0]["bytes_in"]) == (70_000, 5)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(("rcvbuf", "size"), [(4096, 1e6), (16384, 3e6)])
def test_tiny_receive_buffers_whose_windows_our_overhead_must_not_exceed(encrypted_pair, version, rcvbuf, size):
    rounds = []
    for port in (PLAIN_PORT, PORT):
        timers = TimerRounds(encrypted_pair.a, encrypted_pair.b)
        result = transfer(encrypted_pair.a, encrypted_pair.b, port, version=version, size=size, rcvbuf=rcvbuf)
        assert result.differences == []
        rounds.append(timers.count)
    print(f"SO_RCVBUF {rcvbuf}, IPv{version}: longest stall {result.longest_stall} s, rounds of timers {rounds}")
    assert rounds[1] <= rounds[0] + 3


def test_tiny_records(encrypted_pair):
    rounds = []
    for port in (PLAIN_PORT, PORT):
        timers = TimerRounds(encrypted_pair.a, encrypted_pair.b)
        with encrypted_pair.wire() as wire:
            measured = measure(
                encrypted_pair.a, encrypted_pair.b, port, "messages", "--count", 3000, "--size", 4, "--rcvbuf", 4096
            )
        assert measured["identical"]
        rounds.append(timers.count)
    assert rounds[1] <= rounds[0] + 3
    assert_encrypted(wire)
