"""`verify`: what is concluded from segments, the kernel's filter, and the command."""

from __future__ import annotations

import json
import struct
from collections import Counter
from ipaddress import ip_address, ip_network
from typing import Any

import pytest
from click.testing import CliRunner
from scapy.packet import Packet

from mcencrypt.cli import cli
from mcencrypt.cli import verify as command
from mcencrypt.reading.capture import Segment, read_segment
from mcencrypt.reading.judge import MAX_CONNECTIONS, MAX_NAMED, MEMORY, Judge, Kind, Outcome, compare
from mcencrypt.reading.packetfilter import MAX_PORTS, tcp_filter
from tests.unit.reading.test_decode import PORT, Tcp, hello, message, sealed

OWN = [ip_address("10.7.0.1").packed, ip_address("fd00::1").packed]


def segments(packets: list[Packet]) -> list[Segment]:
    oddities: Counter[str] = Counter()
    read = [read_segment(bytes(packet.payload), 0, oddities) for packet in packets]
    assert not oddities
    return [one for one in read if one is not None]


def judge(packets: list[Packet], dropped: int = 0, allowed: tuple[str, ...] = ()) -> Outcome:
    judging = Judge([PORT], OWN, [ip_network(one) for one in allowed])
    judging.feed(segments(packets))
    return judging.finish(10.0, len(packets), dropped, {})


def plain_connection(port: int = 40001) -> list[Packet]:
    tcp = Tcp(port=port).connect(encrypted=False)
    tcp.send(0, message("version", b"x" * 115))
    tcp.send(1, message("version", b"y" * 115))
    return tcp.packets


@pytest.mark.parametrize("version", [4, 6])
def test_an_encrypted_connection(version: int) -> None:
    outcome = judge(Tcp(version=version).exchange().packets)
    assert outcome.verdict == "encrypted" and outcome.complete and outcome.passes(strict=True)
    [one] = outcome.connections
    assert one.kind is Kind.ENCRYPTED and one.from_start and one.handshake and not one.forwarded
    assert one.peer == ("10.7.0.2:7331" if version == 4 else "[fd00::2]:7331")
    assert (one.records, one.encrypted_bytes, outcome.handshakes, outcome.mid_stream) == (6, 654, 2, 0)


def test_a_plaintext_connection_among_encrypted_ones_is_named() -> None:
    outcome = judge([*Tcp().exchange().packets, *plain_connection()])
    assert outcome.verdict == "plaintext" and not outcome.passes(strict=False)
    [one] = [one for one in outcome.connections if one.kind is Kind.PLAINTEXT]
    assert one.local == "10.7.0.1:40001" and one.peer == "10.7.0.2:7331"
    assert one.unencrypted_bytes == 2 * 139 and "'version'" in one.detail
    text = "\n".join(command.describe(outcome, False))
    assert "10.7.0.1:40001 - 10.7.0.2:7331  PLAINTEXT" in text and "NOT ENCRYPTED: 1 connection of 2" in text


def test_plaintext_whose_start_was_not_captured() -> None:
    tcp = Tcp()
    for _ in range(3):
        tcp.send(0, message("ping", b"\7" * 8))
        tcp.send(1, message("pong", b"\7" * 8))
    assert judge(tcp.packets).verdict == "plaintext"


def test_bytes_of_some_other_protocol_are_no_encryption() -> None:
    tcp = Tcp().connect(encrypted=False)
    tcp.send(0, b"GET / HTTP/1.1\r\n\r\n")
    outcome = judge(tcp.packets)
    assert outcome.verdict == "plaintext" and outcome.counts[Kind.PLAINTEXT] == 1


def test_a_leak_in_the_middle_of_an_encrypted_connection() -> None:
    tcp = Tcp().connect()
    for record in sealed([139, 139]):
        tcp.send(0, record)
    tcp.send(0, message("ping", b"\7" * 8))
    outcome = judge(tcp.packets)
    assert outcome.verdict == "plaintext" and not outcome.passes(strict=False)


@pytest.mark.parametrize("offset", [0, 50])
def test_a_capture_that_begins_in_mid_stream(offset: int) -> None:
    """Boundaries are found; what came before the first one is said to be unjudged, not to be plaintext."""
    tcp = Tcp()
    stream = b"".join(sealed([1380] * 8, wire=10**6, plain=0xFFFFF000))
    tcp.send(1, stream[offset:3000])
    tcp.send(1, stream[3000:])
    tcp.send(0, b"", "A")
    outcome = judge(tcp.packets)
    assert outcome.verdict == "encrypted" and outcome.mid_stream == 1
    assert outcome.complete == (not offset) and outcome.passes(strict=False)
    assert outcome.passes(strict=True) == (not offset)
    assert bool(outcome.missing) == bool(offset)
    assert "began before" in "\n".join(command.describe(outcome, True))


def test_packets_that_were_not_captured() -> None:
    tcp = Tcp().connect()
    for index, record in enumerate(sealed([1000] * 400)):
        tcp.send(0, record, captured=index != 20)
    tcp.send(1, b"", "A")
    outcome = judge(tcp.packets, dropped=1)
    assert outcome.verdict == "encrypted" and not outcome.complete and outcome.missing == 1022
    assert outcome.passes(strict=False) and not outcome.passes(strict=True)
    text = "\n".join(command.describe(outcome, False))
    assert "1 packet passed too fast" in text and "as far as it was captured" in text


def test_many_holes_do_not_make_ciphertext_look_like_plaintext() -> None:
    tcp = Tcp().connect()
    for index, record in enumerate(sealed([1000] * 2000)):
        tcp.send(0, record, captured=index % 20 != 5)
        if not index % 100:
            tcp.send(1, b"", "A")
    outcome = judge(tcp.packets, dropped=100)
    assert outcome.verdict == "encrypted" and outcome.missing == 100 * 1022


def test_allowed_peers_are_named_and_fail_only_strictly() -> None:
    packets = [*Tcp().exchange().packets, *plain_connection()]
    outcome = judge(packets, allowed=("10.7.0.0/24", "fd00::/8"))
    assert outcome.verdict == "encrypted" and outcome.counts[Kind.ALLOWED] == 1
    assert outcome.passes(strict=False) and not outcome.passes(strict=True)
    assert "as allow_plaintext permits" in "\n".join(command.describe(outcome, True))
    outcome = judge(plain_connection(), allowed=("10.7.0.0/24",))
    assert outcome.verdict == "allowed plaintext only" and not outcome.passes(strict=False)


def test_nothing_is_no_proof() -> None:
    outcome = judge(Tcp().connect().packets)
    assert outcome.verdict == "nothing seen" and not outcome.passes(strict=False)
    assert "nothing is proven" in command.describe(outcome, False)[-1]


def test_strangers_data_that_nobody_answers_is_no_leak() -> None:
    inbound = Tcp()
    inbound.packets.append(inbound.packet(1, 5000, "S", b"GET / HTTP/1.0\r\n\r\n"))
    inbound.packets.append(inbound.packet(1, 9000, "PA", message("version", b"x" * 115)))
    outcome = judge([*inbound.packets, *Tcp(port=40009).exchange().packets])
    assert outcome.counts[Kind.UNANSWERED] == 1 and outcome.passes(strict=True)
    inbound.packets.append(inbound.packet(0, 1, "A", ack=9139))
    assert judge(inbound.packets).verdict == "plaintext", "an acknowledgement is an answer"


def test_a_connection_that_only_passes_this_host() -> None:
    judging = Judge([PORT], [], [])
    judging.feed(segments(Tcp().exchange().packets))
    outcome = judging.finish(1.0, 10, 0, {})
    assert outcome.connections[0].forwarded
    assert "passes this host" in "\n".join(command.describe(outcome, True))


def moved(template: list[Segment], number: int) -> list[Segment]:
    """The same connection from another port."""
    ports = {40000: 1024 + number, PORT: PORT}
    return [
        one._replace(source_port=ports[one.source_port], destination_port=ports[one.destination_port])
        for one in template
    ]


def test_memory_is_bounded() -> None:
    """More connections than there is room for, with and without an end; and holes in all of them."""
    judging = Judge([PORT], OWN, [])
    template = segments(Tcp().exchange().packets)
    for number in range(MAX_CONNECTIONS + 100):
        judging.feed(moved(template, number))
    assert len(judging._table.all) == MAX_CONNECTIONS and not judging._table.beyond, "those that are over made room"
    judging = Judge([PORT], OWN, [])
    tcp = Tcp().connect()
    for index, record in enumerate(sealed([30_000] * 8)):
        tcp.send(0, record, captured=index > 0)
    template = segments(tcp.packets)
    for number in range(MAX_CONNECTIONS + 3):
        judging.feed(moved(template, number))
        assert judging._table._memory.used <= MEMORY
    assert judging._table._memory.used > MEMORY - 100_000
    outcome = judging.finish(1.0, 1, 0, {})
    assert outcome.beyond == 3 * len(template) and not outcome.complete
    assert len(outcome.connections) <= MAX_NAMED * len(Kind)
    assert judging._table._memory.used == 0


def test_the_daemons_counters() -> None:
    def answer(pid: int, opened: int) -> dict[str, Any]:
        return {"pid": pid, "totals": {"records_in": opened, "records_out": 5, "auth_failures": 0}}

    assert compare(answer(1, 10), answer(1, 25)) == {"records_in": 15, "records_out": 0, "auth_failures": 0}
    assert compare(answer(1, 10), answer(2, 25)) is None and compare(None, answer(1, 1)) is None
    outcome = judge(Tcp().exchange().packets)
    assert "not known" in "\n".join(command.describe(outcome, True))
    outcome.authentic = compare(answer(1, 10), answer(1, 25))
    assert "opened 15, and refused 0" in "\n".join(command.describe(outcome, True))


# ------------------------------------------------------------ the filter


def passes(program: bytes, packet: bytes, protocol: int, hardware: int = 1) -> bool:
    """Run classic BPF as the kernel does (net/core/filter.c), as far as our filters use it."""
    lines = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    assert len(lines) <= 4096
    accumulator = index = at = 0
    while True:
        code, yes, no, value = lines[at]
        at += 1
        if code == 0x06:
            return bool(value)
        if code == 0x15:
            at += yes if accumulator == value else no
        elif code == 0x45:
            at += yes if accumulator & value else no
        elif code == 0x01:
            index = value
        elif code == 0xB1:
            index = 4 * (packet[value] & 15)
        elif code == 0x20:
            accumulator = {0xFFFFF000: protocol, 0xFFFFF000 + 28: hardware}[value]
        else:
            size = {0x30: 1, 0x28: 2, 0x48: 2}[code]
            start = value + (index if code == 0x48 else 0)
            if start + size > len(packet):
                return False
            accumulator = int.from_bytes(packet[start : start + size], "big")


@pytest.mark.parametrize("count", [1, 3, MAX_PORTS, MAX_PORTS + 1])
@pytest.mark.parametrize("version", [4, 6])
def test_the_filter_passes_our_ports_and_only_them(count: int, version: int) -> None:
    program = tcp_filter([PORT, *range(9000, 9000 + count - 1)])
    protocol = 0x0800 if version == 4 else 0x86DD
    tcp = Tcp(version=version).exchange()
    for packet in tcp.packets:
        assert passes(program, bytes(packet.payload), protocol)
        assert not passes(program, bytes(packet.payload), protocol, hardware=772), "loopback"
    other = Tcp(version=version)
    other.ports = (40000, 7332)
    for packet in other.exchange().packets:
        assert passes(program, bytes(packet.payload), protocol) == (count > MAX_PORTS)
    udp = bytearray(bytes(tcp.packets[0].payload))
    udp[9 if version == 4 else 6] = 17
    assert not passes(program, bytes(udp), protocol)
    assert not passes(program, bytes(udp), 0x0806), "ARP"
    assert passes(program, b"\0\7" + protocol.to_bytes(2, "big") + bytes(udp), 0x8100), "a tag, for the reader to judge"
    fragment = bytearray(bytes(tcp.packets[0].payload))
    if version == 4:
        fragment[7] = 9
        assert passes(program, bytes(fragment), protocol)
    else:
        fragment[6] = 44
        assert passes(program, bytes(fragment), protocol)


# ------------------------------------------------------------ the command


class Recording:
    """In the place of a tap: gives its segments once."""

    def __init__(self, packets: list[Packet]) -> None:
        self.segments = segments(packets)
        self.packets, self.dropped, self.oddities = len(packets), 0, Counter[str]()

    def fileno(self) -> int:
        return self.reader.fileno()

    def read(self) -> list[Segment]:
        taken, self.segments = self.segments, []
        return taken

    def stop(self) -> None:
        pass

    def rest(self) -> list[Segment]:
        return self.read()

    def close(self) -> None:
        self.reader.close()

    reader: Any = None


def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Any, packets: list[Packet], *words: str) -> Any:
    import socket

    def tap(ports: Any) -> Recording:
        made = Recording(packets)
        made.reader, other = socket.socketpair()
        other.close()
        return made

    config = tmp_path / "config.toml"
    config.write_text(f'ports = [{PORT}]\nrun_dir = "{tmp_path}/run"\n')
    monkeypatch.setattr("mcencrypt.reading.tap.Tap", tap)
    return CliRunner().invoke(cli, ["verify", "--config", str(config), "--seconds", "0.1", *words])


def test_the_command(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    result = run(monkeypatch, tmp_path, Tcp().exchange().packets)
    assert result.exit_code == 0, result.output
    assert "verdict: encrypted: every byte was handshake or record" in result.stdout
    assert "authenticity: not known, no daemon answers" in result.stdout
    result = run(monkeypatch, tmp_path, plain_connection(), "--json")
    assert result.exit_code == 1
    report = json.loads(result.stdout)
    assert report["verdict"] == "plaintext" and not report["passed"] and report["counts"] == {"plaintext": 1}
    assert report["connections"][0]["kind"] == "plaintext" and report["daemon"] is None
    assert run(monkeypatch, tmp_path, [hello_only()]).exit_code == 1


def hello_only() -> Packet:
    return Tcp().send(0, hello(1), "S")


def test_errors(tmp_path: Any) -> None:
    runner = CliRunner()
    result = runner.invoke(cli, ["verify", "--seconds", "0"])
    assert result.exit_code == 2 and "--seconds" in result.stderr
    result = runner.invoke(cli, ["verify", "--config", str(tmp_path / "none"), "--seconds", "0.1"])
    assert result.exit_code == 1 and result.stderr.startswith("mcencrypt: ") and "not found" in result.stderr
    assert "Example:\n    mcencrypt verify" in runner.invoke(cli, ["verify", "--help"]).stdout
