"""A stranger who knows addresses and ports, and sends: each attack at a plain connection and at an encrypted one.

What does nothing to the plain one does nothing to the encrypted one either.
"""

import itertools
import random
import socket
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest

from lab import interrupted_pair, transfer, wait_for
from lab.behaviours import Split
from lab.middlebox import TO_A, TO_B
from lab.packets import ACK, FIN, PSH, RST, SYN
from tests.helpers.nodes import FULL, PLAIN_PORT, PORT, PORTS, needs_lab, sized
from tests.helpers.pairs import encrypted
from tests.helpers.stranger import talks, timestamps_of

pytestmark = needs_lab

BOTH = (PLAIN_PORT, PORT)
HALF = 1 << 31


def assert_unharmed(boxed, talk):
    """Both daemons call the connection encrypted, and nothing else."""
    port = talk.a.getsockname()[1]
    for node in (boxed.a, boxed.b):
        states = [
            one["state"]
            for one in node.status()["connections"]
            if any(one[end].endswith(f":{port}") for end in ("local", "peer"))
        ]
        assert states == ["encrypted"]


@pytest.mark.parametrize("version", [4, 6])
def test_eight_acknowledgements_do_not_stop_an_idle_connection(boxed, version):
    """The socket's ts_recent was poisoned: numbers from outside the window had been pulled into it."""
    with talks(boxed, BOTH, version, silent=True) as both:
        for talk in both:
            talk.wait_quiet()
            for toward in (TO_A, TO_B):
                for seq, ack, stamp in itertools.product((5, HALF + 5), (7, HALF + 7), (0x3FFFFFFF, 0xBFFFFFFF)):
                    talk.inject(toward, talk.forged(toward, seq, ack, stamp=stamp))
            talk.exchange(100_000)
        assert_unharmed(boxed, both[1])


def test_acknowledgements_of_all_numbers_do_not_stop_a_sender(boxed):
    """Some hit what is in flight, in packets that lie outside the window: the sender believed them."""
    wanted = 600_000
    with talks(boxed, BOTH) as both, ThreadPoolExecutor(1) as beside:
        for talk in both:
            talk.watch.delay = 0.02
            numbers = itertools.product(range(0, 1 << 32, 600_000), (5, HALF + 5))
            forged = [talk.forged(TO_A, seq, number).packed() for number, seq in numbers]
            talk.watch.silent_beyond = wanted
            sending = beside.submit(talk.says, talk.a, talk.b, sized(40e6, 200e6))
            wait_for(lambda talk=talk, sending=sending: talk.watch.silent or sending.done(), "so much to be in flight")
            assert not sending.done(), sending.exception() or "there was never so much in flight"
            boxed.box.inject_all([(TO_A, frame) for frame in forged])
            wait_for(lambda: not boxed.box.waiting, "them to be on their way")
            assert talk.in_flight() > wanted, "there was something to hit"
            talk.watch.hear_again()
            sending.result()
            talk.watch.delay = 0.0
            talk.exchange(5000)


@pytest.mark.parametrize("half_closed", [False, True])
def test_a_reset_that_is_not_exact_ends_nothing(boxed, half_closed):
    """After the peer's FIN any number above it was exact."""
    with talks(boxed, BOTH) as both:
        for talk in both:
            if half_closed:
                talk.a.shutdown(socket.SHUT_WR)
                assert talk.b.recv(1) == b""
            talk.says(talk.b, talk.a, 5000)
            wait_for(lambda talk=talk: talk.newest(TO_A).flags & ACK and talk.newest(TO_B).flags & ACK, "an ack", 5)
            edge = talk.newest(TO_A).acknowledgement
            distances = [1, 2, 22, 23, 1000, 65000, 65536, 100_000, *range(600_000, 1 << 32, 600_000)]
            for some in batched(distances, 250):
                talk.inject(TO_B, *(talk.forged(TO_B, edge + distance, flags=RST) for distance in some))
                wait_for(lambda: not boxed.box.waiting, "them to be on their way")
            talk.says(talk.b, talk.a, 5000)
            if not half_closed:
                talk.exchange(5000)
        if not half_closed:
            assert_unharmed(boxed, both[1])


def test_one_reset_with_any_number_shows_nothing(boxed):
    with talks(boxed, (PORT,)) as (talk,):
        talk.wait_quiet()
        for toward in (TO_A, TO_B):
            talk.inject(toward, talk.forged(toward, 12345, flags=RST))
        talk.inject(TO_B, talk.forged(TO_B, talk.newest(TO_B).sequence + 50, flags=RST))
        talk.exchange(10)  # what is sent behind it arrives behind it
        assert_unharmed(boxed, talk)


def test_an_exact_reset_ends_both_kinds(boxed):
    """The same single number of 2^32."""
    with talks(boxed, BOTH) as both:
        for talk in both:
            talk.wait_quiet()
            edge = talk.newest(TO_A).acknowledgement
            talk.inject(TO_B, talk.forged(TO_B, edge, flags=RST))
            with pytest.raises(ConnectionResetError):
                talk.b.recv(1)


def batched(things, size):
    """Slices of a list, of that many or fewer."""
    return (things[at : at + size] for at in range(0, len(things), size))


def memory_of(node):
    """Resident memory in bytes."""
    with open(f"/proc/{node.pid}/statm") as file:
        return int(file.read().split()[1]) * 4096


def test_data_from_anywhere_is_not_kept(boxed):
    """It filled the room for pieces, and no piecewise record opened again."""
    dice = random.Random(4)
    with talks(boxed, BOTH) as both:
        for talk in both:
            talk.wait_quiet()
            before = memory_of(boxed.b)
            edge = talk.newest(TO_A).acknowledgement
            numbers = [edge + HALF, edge - 100_000, edge - (1 << 28), edge + (1 << 29), edge - HALF]
            pieces = [
                talk.forged(
                    TO_B,
                    numbers[count % len(numbers)] + 1400 * (count // len(numbers)),
                    0,
                    payload=dice.randbytes(1400),
                )
                for count in range(3000)
            ]
            # and far away in single bytes, none beside another
            pieces += [talk.forged(TO_B, edge + HALF - 2 * count, 0, payload=b"x") for count in range(3000)]
            for some in batched(pieces, 200):
                talk.inject(TO_B, *some)
                talk.exchange(10)  # what is sent behind it arrives behind it
            talk.exchange(5000)
            assert memory_of(boxed.b) - before < 2 << 20
            boxed.box.behaviour = Split(0.5, dice=random.Random(3))
            talk.exchange(300_000)
            boxed.box.behaviour = talk.watch
        assert_unharmed(boxed, both[1])


def test_an_unmarked_answer_for_data_behind_the_window(boxed):
    """Both are answered at once, and nothing of it is read or counts, its timestamp least of all."""
    with talks(boxed, BOTH) as both:
        for talk in both:
            talk.wait_quiet()
            edge, ack = talk.newest(TO_A).acknowledgement, talk.newest(TO_B).acknowledgement
            stamp = timestamps_of(talk.newest(TO_B))[0]
            seen = talk.watch.bare[TO_A]
            talk.inject(TO_B, talk.forged(TO_B, edge + (1 << 28), ack, payload=b"garbage", stamp=stamp + 0x7FFF0000))
            wait_for(lambda talk=talk, seen=seen: talk.watch.bare[TO_A] > seen, "an answer", 5)
            talk.exchange(5000)


def blind(dice, talk):
    """A segment of any kind with random numbers, and where it goes."""
    toward = dice.choice((TO_A, TO_B))
    flags = dice.choice((ACK, ACK | PSH, RST, RST | ACK, FIN | ACK, SYN, SYN | ACK, 0, ACK | 0x20))
    payload = dice.randbytes(dice.randrange(1, 1400)) if flags & PSH else b""
    stamp = dice.choice((None, dice.getrandbits(32)))
    seq, ack = dice.getrandbits(32), dice.getrandbits(32)
    return toward, talk.forged(toward, seq, ack, flags, payload, stamp, dice.getrandbits(16)).packed()


@pytest.mark.parametrize("version", [4, 6])
def test_many_blind_packets(boxed, version):
    """Mixed flags, random numbers: both connections live on, and every byte is right.

    A hundred thousand for each; by IPv6 with MCENCRYPT_FULL=1 only, fifteen thousand without it.
    """
    dice = random.Random(9)
    rounds = 60 if version == 6 and not FULL else 400
    with talks(boxed, BOTH, version) as both:
        memory = {node: memory_of(node) for node in (boxed.a, boxed.b)}
        for _ in range(rounds):
            boxed.box.inject_all([blind(dice, talk) for _ in range(250) for talk in both])
            for talk in both:
                talk.exchange(20)
        for talk in both:
            talk.exchange(100_000)
        assert_unharmed(boxed, both[1])
        for node in (boxed.a, boxed.b):
            assert memory_of(node) - memory[node] < 4 << 20
            print(node, dict(node.status()["refused"]), memory_of(node) - memory[node])
        print(boxed.box.forwarded, boxed.box.refused)


@pytest.mark.parametrize("kind", ["reset", "timestamp"])
def test_every_number_around_the_window_but_one(boxed, kind):
    """An attacker who can afford 10^5 packets and knows where the window is: one number of them does harm to either.

    All of them with MCENCRYPT_FULL=1; without it all that are near, and every eleventh of the others.
    """
    distances = [
        distance
        for distance in range(-20_000, 80_001)
        if distance and (FULL or -1000 < distance < 2000 or not distance % 11)
    ]
    with talks(boxed, BOTH) as both:
        for talk in both:
            talk.wait_quiet()
            edge, ack = talk.newest(TO_A).acknowledgement, talk.newest(TO_B).acknowledgement
            newest = timestamps_of(talk.newest(TO_B))[0]
            how = {"flags": RST} if kind == "reset" else {"stamp": newest + 0x7FF00000}
            for some in batched(distances, 250):  # not so many at once that a queue overflows
                talk.inject(TO_B, *(talk.forged(TO_B, edge + distance, ack, **how) for distance in some))
                wait_for(lambda: not boxed.box.waiting, "them to be on their way")
            talk.says(talk.a, talk.b, 20)
            talk.exchange(20_000)
            # and the one: it does to both what it can
            talk.wait_quiet()
            edge, ack = talk.newest(TO_A).acknowledgement, talk.newest(TO_B).acknowledgement
            if kind == "reset":
                talk.inject(TO_B, talk.forged(TO_B, edge, ack, RST))
                with pytest.raises(ConnectionResetError):
                    talk.b.recv(1)
            else:
                newest = timestamps_of(talk.newest(TO_B))[0]
                talk.inject(TO_B, talk.forged(TO_B, edge, ack, stamp=newest + 0x7FF00000))
                talk.b.settimeout(2)
                with pytest.raises(TimeoutError):
                    talk.says(talk.a, talk.b, 20)


def test_strangers_fill_no_table_of_plaintext_connections():
    """Under `prefer`: what anybody can send passes, and leaves nothing behind that could keep others out."""
    with interrupted_pair() as net, encrypted(net, mode="prefer") as pair:
        assert transfer(pair.a, pair.b, PORT, size=1000).differences == []
        with talks(pair, (PORT,)) as (talk,), pair.b.socket() as listening:
            listening.bind((pair.b.v4, PORTS[1]))
            listening.listen(64)
            newest = talk.newest(TO_B)
            for number in range(2000):
                source = bytes((10, 66, 1 + number // 250, 1 + number % 250))
                stranger = replace(
                    newest, ip=newest.ip[:12] + source + newest.ip[16:], source=source,
                    ports=(2000 + number, PORTS[1]), options=b"", payload=b"",
                )  # fmt: skip
                for flags, payload in ((SYN, b""), (ACK | PSH, b"junk"), (RST, b"")):
                    talk.inject(TO_B, replace(stranger, flags=flags, payload=payload))
                if number % 200 == 0:
                    talk.exchange(10)
            talk.exchange(1000)
            assert_unharmed(pair, talk)
            assert {one["state"] for one in pair.b.status()["connections"]} <= {"encrypted", "closing"}
        pair.a.mcencrypt("off")
        with talks(pair, (PORTS[2],)) as (talk,):
            talk.exchange(1000)
            (shown,) = pair.b.connections("plaintext")
            assert shown["peer"].endswith(f":{talk.a.getsockname()[1]}")
            assert shown["bytes_in"] >= 1000 and shown["bytes_out"] >= 1000
