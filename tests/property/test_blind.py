"""Who knows only addresses and ports can do no more to a connection than to one of plain TCP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.blind import DISTANCES, PlainSocket, forge, snapshot
from tests.helpers.habits import Habits
from tests.helpers.network import Network
from tests.helpers.packets import ACK, FIN, RST, WORD, Packet
from tests.helpers.strategies import EFFORT, worlds
from tests.helpers.world import World


def quiet(world: World) -> None:
    """Nothing is under way, and both sides have said what they have."""
    world.calm()
    ends = None
    while ends != [witness.end for witness in world.witnesses]:
        # A window that opens lets records go that waited for it.
        ends = [witness.end for witness in world.witnesses]
        for side in (0, 1):
            world.ends[side].challenges = 0
            world.ends[side].pure_ack()
            world.transmit(side)
            world.calm()


def attacked_moments(world: World, random: Random, rounds: int) -> Iterator[tuple[int, PlainSocket]]:
    """A side, and what a plain TCP would know in its place, at different times of a connection's life.

    What both have sent is partly under way: to be acknowledged, or to be received.
    """
    world.settle_handshake()
    for _ in range(rounds):
        quiet(world)
        for side in (0, 1):
            end = world.ends[side]
            end.written = min(len(end.out), end.written + random.choice((0, 1, 100, 5000)))
            end.closed = end.closed or (end.written == len(end.out) and random.random() < 0.2)
            if random.random() < 0.7:
                end.send_new(random.choice((1, 32, 3000, 60000)))
            world.transmit(side)
            if random.random() < 0.3:
                end.consume(random.choice((10, 100000)))
                end.pure_ack()
                world.transmit(side)
        side = random.randrange(2)
        yield side, PlainSocket.of(world, side)


# Sides that have data to send and to get; the wire itself is perfect meanwhile.
WORLDS = worlds(lengths=(300, 5000, 60_000), buffers=(300, 3000, 65535, 200_000))


@settings(max_examples=150 * EFFORT)
@given(WORLDS, st.integers(0, 1 << 32), st.integers(1, 12))
def test_what_plain_tcp_ignores_changes_nothing(world: World, seed: int, rounds: int) -> None:
    random = Random(seed)
    forged = 0
    for side, socket in attacked_moments(world, random, rounds):
        before = snapshot(world, side)
        for _ in range(12):
            packet = forge(random, world, side, socket)
            if not socket.ignores(packet):
                continue
            forged += 1
            world.ends[side].challenges = 0
            world.inject(side, packet.build())
            after = snapshot(world, side)
            assert after == before, {
                name: (before[name], after[name], packet, socket) for name in before if before[name] != after[name]
            }
    world.settle()
    world.check()


@settings(max_examples=100 * EFFORT)
@given(WORLDS, st.integers(0, 1 << 32), st.integers(1, 8))
def test_what_hits_the_window_is_not_read(world: World, seed: int, rounds: int) -> None:
    """Where plain TCP would read garbage, an end that nobody wrote or a gap: whatever it is, no byte of it counts."""
    random = Random(seed)
    for side, socket in attacked_moments(world, random, rounds):
        end = world.ends[side]
        size = socket.right_edge - socket.rcv_nxt & WORD
        for _ in range(6):
            seq = socket.rcv_nxt + random.choice((0, 1, random.randint(0, size), size, size + 1))
            payload = random.choice((b"", random.randbytes(random.randint(1, 1400))))
            flags = ACK | random.choice((0, FIN))
            packet = forge(random, world, side, socket)
            world.ends[side].challenges = 0
            (known,) = world.engines[side]._by_local.values()
            shift = known.remote_scale
            window = max(0, known.egress.right_edge - known.egress.una) >> shift
            packet = replace(
                packet, seq=seq & WORD, ack=socket.snd_una, flags=flags, window=window, payload=payload,
                options=end._options() and b"\x01\x01\x08\x0a" + socket.ts_recent.to_bytes(4, "big") + bytes(4)
                if end.timestamps else b"",
            )  # fmt: skip
            world.inject(side, packet.build())
    world.settle()
    world.check()


@pytest.mark.parametrize("distance", [one for one in DISTANCES if one])
@pytest.mark.parametrize("closed", [False, True])
def test_only_an_exact_reset_ends_it(distance: int, closed: bool) -> None:
    """Before and after the far side's FIN: its number behind the window, in it or below it, but for the very one."""
    habits = Habits(buffer=60_000)
    world = World(1, Network(), (habits, habits), (3000, 3000), (0xFFFFF000, 77))
    world.settle_handshake()
    end = world.ends[0]
    end.written, end.closed = len(end.out), closed
    while end.send_new(1000):
        world.transmit(0)
    quiet(world)
    socket = PlainSocket.of(world, 1)
    assert world.ends[1].fin_taken == closed
    victim = world.ends[1]
    for edge in (socket.rcv_nxt, socket.right_edge):
        number = edge + distance & WORD
        packet = Packet(
            victim.remote[0], victim.local[0], (victim.remote[1], victim.local[1]), number, socket.snd_nxt, RST, 0
        )
        if socket.ignores(packet):
            world.inject(1, packet.build())
            assert not victim.reset and world.engines[1]._by_local
            (known,) = world.engines[1]._by_local.values()
            assert not known.closing
    packet = Packet(victim.remote[0], victim.local[0], (victim.remote[1], victim.local[1]), socket.rcv_nxt, 0, RST, 0)
    world.inject(1, packet.build())
    assert victim.reset
