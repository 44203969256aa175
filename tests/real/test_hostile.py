"""An attacker on the path: what it changes, invents or plays back never reaches an application."""

import hashlib
import random
import socket
import time
from dataclasses import replace

import pytest

from lab import PATIENCE, LabError, start, transfer, wait_for
from lab.behaviours import Record, Sometimes, data_only, flip
from lab.packets import ETHERNET, RST, SYN, ones_complement_sum, parse
from lab.streams import content
from tests.helpers.nodes import FULL, PACING, PORT, PORTS, needs_lab, sized

pytestmark = needs_lab


def with_right_checksum(frame, tcp_at):
    """The frame with the TCP checksum that its bytes ask for, whatever they are."""
    changed = bytearray(frame)
    changed[tcp_at + 16 : tcp_at + 18] = b"\0\0"
    addresses = changed[26:34] if changed[14] >> 4 == 4 else changed[22:54]
    length = len(changed) - tcp_at
    total = ones_complement_sum(bytes(addresses) + length.to_bytes(4, "big") + b"\0\0\0\6" + bytes(changed[tcp_at:]))
    changed[tcp_at + 16 : tcp_at + 18] = (0xFFFF - total).to_bytes(2, "big")
    return bytes(changed)


class FlipBits(Sometimes):
    """Flip one bit of a segment, its checksum put right: of the TCP header, options or payload by turns."""

    def __init__(self, fraction, part, dice):
        super().__init__(fraction, choose=data_only, dice=dice)
        self.part = part
        self.flipped = set()

    def happen(self, frame, segment):
        tcp_at = ETHERNET + len(segment.ip)
        options_at, payload_at = tcp_at + 20, tcp_at + 20 + len(segment.options)
        begin, end = {
            "header": (tcp_at + 4, options_at),
            "options": (options_at, payload_at),
            "payload": (payload_at, payload_at + len(segment.payload)),
            "record-header": (payload_at, payload_at + min(6, len(segment.payload))),
        }[self.part]
        if begin == end:
            return [(0.0, frame)]
        bit = self._dice.randrange(begin * 8, end * 8)
        self.flipped.add(bit - begin * 8)
        return [(0.0, with_right_checksum(flip(frame, bit), tcp_at))]


def assert_nothing_false_was_read(result, seed, size):
    """What each end read is the beginning of what the other wrote, and an end of stream is its true end."""
    for report, other in ((result.client, "server"), (result.server, "client")):
        for one in report["connections"]:
            # ends may number their connections differently; all streams of one side are of one size
            beginnings = set()
            for index in range(len(report["connections"])):
                digest, left = hashlib.sha256(), one["received"]
                for chunk in content(seed, other, index, size):
                    digest.update(chunk[:left])
                    left -= len(chunk[:left])
                beginnings.add(digest.hexdigest())
            assert one["received_sha256"] in beginnings
            assert one["error"] or one["received"] == size


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("part", ["header", "options", "payload", "record-header"])
def test_no_flipped_bit_changes_what_is_read(boxed, version, part):
    connections, size = sized(6, 30), 200_000
    seed = 7 if not FULL else int(time.time())
    boxed.box.behaviour = acting = FlipBits(0.03, part, random.Random(seed))
    # a forged reset that hits the very number ends a connection, as it does without us,
    # and a forged timestamp can make the socket refuse all that is true
    deadline = PATIENCE if "payload" in part or "record" in part else 5
    how = {"version": version, "size": size, "connections": connections, "seed": seed, "deadline": deadline}
    try:
        result = transfer(boxed.a, boxed.b, PORT, **how)
    except LabError as ended:
        # reset before all had been dialled: then there is no report
        assert part in ("header", "options") and "ConnectionResetError" in str(ended)
        return
    assert acting.count > 10
    print(f"seed {seed}: {acting.count} segments changed in {len(acting.flipped)} places; {result.differences[:3]}")
    assert_nothing_false_was_read(result, seed, size)
    if "payload" in part or "record" in part:
        assert result.differences == []
        assert any(node.status()["totals"]["auth_failures"] for node in (boxed.a, boxed.b))
        assert "packet not authentic" in boxed.a.log() + boxed.b.log()


class Precede:
    """Let a copy with one bit flipped, checksum put right, run ahead of each data segment: every bit has its turn."""

    def __init__(self, first, last, without):
        """Bits from byte `first` of the TCP header up to byte `last`, those in `without` left out."""
        self.left = [bit for bit in range(first * 8, last * 8) if bit not in without]
        #: The connection's port on a; segments that an earlier connection still repeats have no turn.
        self.port = None

    def __call__(self, frame, toward, now):
        segment = parse(frame)
        if segment is None or not data_only(segment) or not self.left or segment.ports != (self.port, PORT):
            return [(0.0, frame)]
        tcp_at = ETHERNET + len(segment.ip)
        return [(0.0, with_right_checksum(flip(frame, tcp_at * 8 + self.left.pop()), tcp_at)), (0.0, frame)]


RST_BIT = 13 * 8 + 2
CHECKSUM = range(16 * 8, 18 * 8)


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("where", ["header", "payload"])
def test_every_single_bit_in_turn(boxed, version, where):
    """A forged reset that hits the very number ends a connection with or without us; no other bit may."""
    first, last = {"header": (4, 20), "payload": (32, 32 + 22 + 16)}[where]
    boxed.box.behaviour = acting = Precede(first, last, {RST_BIT, *CHECKSUM})
    boxed.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
    with boxed.a.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as sock:
        sock.settimeout(PATIENCE)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.connect((boxed.b.address(version), PORT))
        acting.port = sock.getsockname()[1]
        number = 0
        while acting.left:
            bit = acting.left[-1]
            number += 1
            message = f"message {number:08}".encode()
            sock.sendall(message)
            got = b""
            while len(got) < len(message):
                more = sock.recv(100)
                assert more, f"the stream ended: bit {bit % 8} of byte {bit // 8}"
                got += more
            assert got == message, f"bit {bit % 8} of byte {bit // 8}"
    assert number >= (last - first - 3) * 8


def test_a_recorded_syn_from_another_address_gets_no_answer(boxed):
    record = boxed.box.behaviour = Record(lambda segment: segment.flags == SYN)
    assert transfer(boxed.a, boxed.b, PORT, size=1000).differences == []
    toward, frame = record.frames[0]
    boxed.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
    boxed.a.ip("address", "add", "10.66.0.77/24", "dev", "eth0")
    segment = parse(frame)
    elsewhere = socket.inet_aton("10.66.0.77")
    other_address = replace(segment, ip=segment.ip[:12] + elsewhere + segment.ip[16:], source=elsewhere).packed()
    other_port = replace(segment, ports=(segment.ports[0] ^ 1, PORT)).packed()
    other_number = replace(segment, sequence=segment.sequence ^ 1).packed()
    with boxed.wire() as wire:
        before = boxed.b.status()["refused"].get("replayed", 0)
        for copy in (other_address, other_port, other_number):
            boxed.box.inject(copy, toward)
        wait_for(lambda: sum(boxed.b.status()["refused"].values()) >= before + 3, "three refusals")
        # The first connection's last acknowledgements may still be on their way.
        assert not [seen for seen in wire.segments(PORT) if seen.source_port == PORT and seen.flags & (SYN | RST)]
    print(boxed.b.status()["refused"])


def test_garbage_in_a_syn_is_refused_and_costs_little(boxed):
    record = boxed.box.behaviour = Record(lambda segment: segment.flags == SYN)
    assert transfer(boxed.a, boxed.b, PORT, size=1000).differences == []
    toward, frame = record.frames[0]
    segment = parse(frame)
    boxed.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
    dice = random.Random(3)
    ports = range(1024, 3024)
    refused = sum(boxed.b.status()["refused"].values())
    lines = len(boxed.b.log().splitlines())
    with boxed.wire() as wire:
        for port in ports:
            payload = bytearray(segment.payload)
            payload[dice.randrange(len(payload))] ^= 1 << dice.randrange(8)
            copy = replace(segment, ports=(port, PORT), payload=bytes(payload))
            boxed.box.inject(copy.packed(), toward)
        wait_for(lambda: sum(boxed.b.status()["refused"].values()) >= refused + len(ports), "all to be refused")
        # The first connection's end may still be on its way.
        assert not [one for one in wire.segments(PORT) if one.source_port == PORT and one.destination_port in ports]
    assert len(boxed.b.log().splitlines()) - lines < len(ports) / 4, "strangers must not fill the log"
    assert transfer(boxed.a, boxed.b, PORTS[1], size=1e5).differences == []


def test_old_packets_played_back_change_nothing(boxed):
    record = boxed.box.behaviour = Record(data_only, limit=400)
    running = start(boxed.a, boxed.b, PORT, endless=True, pacing=PACING)
    wait_for(lambda: len(record.frames) == 400, "packets to record")
    for toward, frame in record.frames:
        boxed.box.inject(frame, toward)
    running.end()
    assert running.result().differences == []
    # and into the next connection between the same ports
    for toward, frame in record.frames:
        boxed.box.inject(frame, toward)
    assert transfer(boxed.a, boxed.b, PORT, size=1e6).differences == []


def test_a_flood_of_invented_segments_in_a_live_connection(boxed):
    record = boxed.box.behaviour = Record(data_only, limit=20)
    running = start(boxed.a, boxed.b, PORT, endless=True, pacing=PACING)
    wait_for(lambda: len(record.frames) == 20, "packets to imitate")
    dice = random.Random(5)
    for _ in range(1000):
        toward, frame = dice.choice(record.frames)
        segment = parse(frame)
        forged = segment.with_payload(
            segment.sequence + dice.randrange(0, 1 << 20), dice.randbytes(dice.randint(1, 1400)), segment.flags
        )
        boxed.box.inject(forged.packed(), toward)
    running.end()
    assert running.result().differences == []
