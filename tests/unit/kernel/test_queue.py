"""The netfilter queue, without a kernel: recorded messages in, one verdict for each out, whatever happens."""

from __future__ import annotations

import errno
import itertools
import logging
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcencrypt.core.fast import Express
from mcencrypt.core.packet import VERDICT_LIMIT
from mcencrypt.core.verdict import ACCEPT, DROP, Verdict
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.netlink import attributes
from mcencrypt.kernel.queue import BURST, Queue, progress, statistics
from tests.helpers.packets import parse
from tests.helpers.queued import CONFIGURATION, FakeBinding, acknowledgement, packet_id
from tests.helpers.relayed import Relayed

NUMBER = 27971
RECORDED = {path.stem: path.read_bytes() for path in sorted((Path(__file__).parent / "recorded").glob("*.bin"))}
#: Attributes begin behind struct nlmsghdr and struct nfgenmsg; linux/netfilter/nfnetlink_queue.h names them.
ATTRIBUTES_AT, PACKET_HEADER, PAYLOAD, SKB_INFO = 20, 1, 10, 14


class Seen(NamedTuple):
    """What is decided about."""

    packet: bytes
    skb_info: int
    outgoing: bool


def expected(message: bytes) -> Seen:
    """The same, found by walking all attributes."""
    found = dict(attributes(message, ATTRIBUTES_AT))
    info = int.from_bytes(found.get(SKB_INFO, b""), "big")
    return Seen(found.get(PAYLOAD, b""), info, found[PACKET_HEADER][6] == 3)


class Bench:
    """A queue whose kernel is the test."""

    def __init__(self, express: Express | None = None) -> None:
        self.seen: list[Seen] = []
        self.verdict: Callable[[], Verdict] = lambda: ACCEPT
        self.binding = FakeBinding()
        self.queue = Queue(NUMBER, self.decide, self.binding, express)
        self.configuration = self.binding.kernel.recv(4096)

    def decide(self, packet: memoryview, skb_info: int, outgoing: bool, now: float) -> Verdict:
        self.seen.append(Seen(bytes(packet), skb_info, outgoing))
        return self.verdict()

    def take(self, *messages: bytes) -> list[Seen]:
        """What is decided about these."""
        del self.seen[:]
        for message in messages:
            self.binding.kernel.send(message)
        self.queue.ready()
        return self.seen

    def verdict_on(self, name: str = "egress-ipv4-syn-1") -> tuple[str, bytes | None]:
        self.take(RECORDED[name])
        [given] = self.binding.verdicts()
        assert given.id == packet_id(RECORDED[name])
        return given.verdict, given.replacement


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.queue.close()
    made.binding.close()


# -- messages


@pytest.mark.parametrize("name", RECORDED)
def test_a_recorded_message_is_understood(bench: Bench, name: str) -> None:
    message = RECORDED[name]
    direction, family, kind, info = name.split("-")
    [seen] = bench.take(message)
    assert seen == expected(message)
    assert (seen.outgoing, seen.packet[0] >> 4, seen.skb_info) == (direction == "egress", int(family[-1]), int(info))
    assert seen.packet and message.endswith(seen.packet) and (len(seen.packet) > 1500) == (kind == "batch")


def test_what_the_message_before_was_like_does_not_matter(bench: Bench) -> None:
    for one, other in itertools.product(RECORDED.values(), repeat=2):
        assert bench.take(one, other) == [expected(one), expected(other)]


def test_what_waits_for_a_verdict_is_done_behind_it_and_before_the_next_packet(bench: Bench) -> None:
    acts: list[str] = []

    def decide() -> Verdict:
        acts.append("decided")
        return ACCEPT

    def behind() -> None:
        acts.extend(given.verdict for given in bench.binding.verdicts())

    bench.verdict, bench.queue.behind = decide, behind
    message = RECORDED["egress-ipv4-syn-1"]
    bench.take(message, message)
    assert acts == ["decided", "accept"] * 2


def test_a_failure_behind_a_verdict_is_counted_and_the_next_packet_gets_its_own(bench: Bench) -> None:
    failing = iter([True, False])

    def behind() -> None:
        if next(failing):
            raise RuntimeError

    bench.queue.behind = behind
    message = RECORDED["egress-ipv4-syn-1"]
    bench.take(message, message)
    assert bench.queue.bad_verdicts == 1
    assert [given.verdict for given in bench.binding.verdicts()] == ["accept", "drop", "accept"]


def test_a_message_without_a_packet_is_dropped_undecided(bench: Bench) -> None:
    message = RECORDED["egress-ipv4-syn-1"]
    head = message[: -len(expected(message).packet) - 4]
    assert bench.take(struct.pack("=I", len(head)) + head[4:]) == []
    [given] = bench.binding.verdicts()
    assert given == (packet_id(message), "drop", None)


@given(st.sampled_from(sorted(RECORDED)), st.integers(20, 80), st.binary(min_size=1, max_size=4), st.integers(0, 40))
def test_no_message_disturbs_the_queue(name: str, at: int, change: bytes, cut: int) -> None:
    message = bytearray(RECORDED[name])
    message[at : at + len(change)] = change
    bench = Bench()
    try:
        odd = bytes(message[: len(message) - cut])
        seen = bench.take(odd)
        assert all(one.packet in odd for one in seen)
        assert len(bench.binding.verdicts()) <= 1 and len(seen) <= 1
        assert bench.take(RECORDED[name]) == [expected(RECORDED[name])], "the next one is understood"
    finally:
        bench.queue.close()
        bench.binding.close()


def test_others_get_their_turn_after_a_burst(bench: Bench) -> None:
    message = RECORDED["ingress-ipv4-syn-1"]
    for _ in range(BURST):
        bench.binding.kernel.send(message)
    assert len(bench.take(message, message)) == BURST
    bench.queue.ready()
    assert len(bench.seen) == BURST + 2


# -- packets that go to the socket as one


def carrying(number: int, packet: bytes) -> bytes:
    """A message of the kernel's with another packet from the network."""
    message = RECORDED["ingress-ipv4-syn-1"]
    head = bytearray(message[: -len(expected(message).packet) - 4])
    head[24:28] = struct.pack("!I", number)
    attribute = struct.pack("=HH", 4 + len(packet), PAYLOAD) + packet + bytes(-len(packet) % 4)
    return struct.pack("=I", len(head) + len(attribute)) + bytes(head[4:]) + attribute


def test_what_waits_of_one_stream_goes_to_the_socket_as_one() -> None:
    relayed, data = Relayed(), bytes(range(256)) * 256
    packets = [packet.build() for packet in relayed.packets(*relayed.sealed(data, 4000), 8192)]
    bench = Bench(relayed.b.engine.express)
    try:
        assert bench.take(*(carrying(number, packet) for number, packet in enumerate(packets))) == []
        given = bench.binding.verdicts()
    finally:
        bench.queue.close()
        bench.binding.close()
    assert sorted(one.id for one in given) == list(range(len(packets))), "one verdict each"
    passed = [parse(one.replacement) for one in given if one.replacement is not None]
    assert b"".join(packet.payload for packet in passed) == data[: sum(len(packet.payload) for packet in passed)]
    assert len(passed) <= 3 and sum(len(packet.payload) for packet in passed) > len(data) - 4000
    assert [one.verdict for one in given].count("drop") == len(packets) - len(passed)


@pytest.mark.parametrize("number", [1, 3])
def test_what_ends_no_record_is_decided_once_and_as_one_packet(number: int) -> None:
    relayed, data = Relayed(), bytes(range(250)) * 16
    packets = [packet.build() for packet in relayed.packets(*relayed.sealed(data, 4000), 1000)][:number]
    bench = Bench(relayed.b.engine.express)
    bench.verdict = lambda: b"what is left"
    try:
        seen = bench.take(*(carrying(at, packet) for at, packet in enumerate(packets)))
        bench.queue.ready()
        given = bench.binding.verdicts()
    finally:
        bench.queue.close()
        bench.binding.close()
    [one] = seen
    assert parse(one.packet).payload == b"".join(parse(packet).payload for packet in packets)
    assert not one.outgoing and bench.queue.bad_verdicts == 0
    assert [*given] == [*((at, "drop", None) for at in range(number - 1)), (number - 1, "accept", b"what is left")]


def test_an_error_about_what_ends_no_record_drops_it() -> None:
    relayed = Relayed()
    [packet, *_] = [packet.build() for packet in relayed.packets(*relayed.sealed(bytes(4000), 4000), 1000)]
    bench = Bench(relayed.b.engine.express)

    def broken() -> Verdict:
        raise ZeroDivisionError

    bench.verdict = broken
    try:
        bench.take(carrying(1, packet))
        assert bench.binding.verdicts() == [(1, "drop", None)] and bench.queue.bad_verdicts == 1
        bench.verdict = lambda: ACCEPT
        assert bench.take(RECORDED["ingress-ipv4-syn-1"]) == [expected(RECORDED["ingress-ipv4-syn-1"])]
    finally:
        bench.queue.close()
        bench.binding.close()


# -- verdicts


def test_each_packet_gets_what_was_decided(bench: Bench) -> None:
    assert bench.verdict_on() == ("accept", None)
    bench.verdict = lambda: DROP
    assert bench.verdict_on() == ("drop", None)
    bench.verdict = lambda: b"another packet"
    assert bench.verdict_on() == ("accept", b"another packet")
    bench.verdict = lambda: bytes(VERDICT_LIMIT)
    assert bench.verdict_on() == ("accept", bytes(VERDICT_LIMIT))
    assert bench.queue.bad_verdicts == 0


@pytest.mark.parametrize("wrong", [b"", bytes(VERDICT_LIMIT + 1), bytes(1 << 16), None, "drop", bytearray(b"packet")])
def test_what_the_kernel_would_take_for_the_original_is_dropped(bench: Bench, wrong: Verdict) -> None:
    bench.verdict = lambda: wrong
    assert bench.verdict_on() == ("drop", None)
    assert bench.queue.bad_verdicts == 1


def test_an_error_drops_the_packet_and_is_logged_once(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    def broken() -> Verdict:
        raise ZeroDivisionError

    bench.verdict = broken
    with caplog.at_level(logging.ERROR):
        assert [bench.verdict_on() for _ in range(3)] == [("drop", None)] * 3
    assert bench.queue.bad_verdicts == 3
    [record] = caplog.records
    assert "internal error" in record.message and record.exc_info
    bench.verdict = lambda: ACCEPT
    assert bench.verdict_on() == ("accept", None)


# -- binding


def test_batches_are_asked_for_whole(bench: Bench) -> None:
    assert bench.binding.bound == NUMBER
    length, kind, flags, sequence = struct.unpack_from("=IHHI", bench.configuration)
    assert (length, kind, sequence) == (len(bench.configuration), 0x0302, CONFIGURATION)
    assert flags == 5, "a request that is acknowledged"
    assert bench.configuration[16:20] == b"\0\0" + NUMBER.to_bytes(2, "big")
    asked = dict(attributes(bench.configuration, ATTRIBUTES_AT))
    parameters, mask, flags_set = 2, 4, 5
    assert asked == {
        parameters: VERDICT_LIMIT.to_bytes(4, "big") + b"\2",
        mask: (4).to_bytes(4, "big"),
        flags_set: (4).to_bytes(4, "big"),
    }
    bench.queue.close()
    assert bench.binding.bound is None


def refused(binding: FakeBinding) -> str:
    with pytest.raises(OperatorError) as caught:
        Queue(NUMBER, lambda *_: ACCEPT, binding)
    return str(caught.value)


def test_a_queue_that_cannot_be_had() -> None:
    binding = FakeBinding()
    binding.problem = OSError("Failed to create queue 27971.")
    assert "cannot bind netfilter queue 27971" in refused(binding) and binding.bound is None
    said = refused(FakeBinding([acknowledgement(errno.EOPNOTSUPP)]))
    assert "refused GSO packets on netfilter queue 27971: Operation not supported" in said
    assert "did not answer" in refused(FakeBinding([]))
    assert "did not answer" in refused(FakeBinding([acknowledgement(sequence=7)]))


def test_what_came_before_the_answer_is_dropped() -> None:
    early = RECORDED["egress-ipv4-batch-3"]
    binding = FakeBinding([early, acknowledgement()])
    queue = Queue(NUMBER, lambda *_: pytest.fail("it was not copied whole"), binding)
    queue.ready()
    request = binding.kernel.recv(1 << 16)
    assert packet_id(request) != packet_id(early) and binding.verdicts() == [(packet_id(early), "drop", None)]
    queue.close()
    binding.close()


def test_progress_does_not_count_what_the_socket_had_no_room_for(tmp_path: Path):
    # queue, port id, waiting, copy mode, copy range, dropped (full), dropped (socket), last id, 1
    proc = tmp_path / "nfnetlink_queue"
    ours = "27971  4711    12 2 65531     3    40     1052  1\n"
    proc.write_text("  100   99     0 2 65531     0     0        5  1\n" + ours)
    assert progress(27971, str(proc)) == (12, 1000, 1052)
    assert statistics(27971, str(proc)) == (12, 3, 40)
    assert progress(1, str(proc)) == (0, 0, 0)
    assert progress(1, str(tmp_path / "missing")) == (0, 0, 0)
