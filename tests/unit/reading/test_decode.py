"""`decode`: captures made here, record by record, and what is said about them."""

from __future__ import annotations

import gzip
import io
import random
import struct
from collections.abc import Iterable
from itertools import pairwise
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6, IPv6ExtHdrDestOpt
from scapy.layers.l2 import Dot1Q, Ether
from scapy.packet import Packet, Raw
from scapy.utils import PcapNgWriter, PcapWriter

from mcencrypt.errors import OperatorError
from mcencrypt.reading import dissector
from mcencrypt.reading.conversations import Conversation, Verdict
from mcencrypt.reading.dissector import Hello, Record
from mcencrypt.reading.reassembly import MAX_PATIENCE, Run
from mcencrypt.reading.report import Report, decode
from mcencrypt.reading.streamparser import SEARCH_LIMIT, Finding, Piece, StreamParser

KEY_ID = bytes.fromhex("1a2b3c4d5e6f7081")
PORT = 7331
MACS = ("02:00:00:00:00:01", "02:00:00:00:00:02")
NETWORK = bytes.fromhex("f4fef8e1")


def hello(kind: int, seed: int = 0) -> bytes:
    rest = random.Random(seed * 2 + kind).randbytes(124)
    return b"mcen" + bytes([1, kind]) + KEY_ID + rest


def message(command: str, payload: bytes = b"") -> bytes:
    """One message in MultiChain's framing; the checksum is nothing that a reader of captures looks at."""
    header = NETWORK + command.encode().ljust(12, b"\0") + struct.pack("<I", len(payload))
    return header + b"\1\2\3\4" + payload


def sealed(lengths: Iterable[int], final: bool = False, wire: int = 138, plain: int = 0) -> list[bytes]:
    """Records as the format says, one after the other."""
    cipher = AESGCM(bytes(32))
    records = []
    sizes = list(lengths)
    for index, length in enumerate(sizes):
        word = length | (0x8000 if final and index == len(sizes) - 1 else 0)
        header = struct.pack("!HI", word, plain & 0xFFFFFFFF)
        records.append(header + cipher.encrypt(struct.pack("!IQ", 0, wire), bytes(length), header))
        wire += 22 + length
        plain += length
    return records


class Tcp:
    """Both ends of a connection, writing what a capture would hold."""

    def __init__(self, port: int = 40000, isn: tuple[int, int] = (1000, 0xFFFFFF80), version: int = 4) -> None:
        self.packets: list[Packet] = []
        self.ports = (port, PORT)
        self.next = list(isn)
        self.version = version

    def packet(self, side: int, sequence: int, flags: str, payload: bytes = b"", ack: int | None = None) -> Packet:
        names = ("10.7.0.1", "10.7.0.2") if self.version == 4 else ("fd00::1", "fd00::2")
        network = (IP if self.version == 4 else IPv6)(src=names[side], dst=names[1 - side])
        segment = TCP(
            sport=self.ports[side],
            dport=self.ports[1 - side],
            seq=sequence & 0xFFFFFFFF,
            ack=(self.next[1 - side] if ack is None else ack) & 0xFFFFFFFF,
            flags=flags,
        )
        made = Ether(src=MACS[side], dst=MACS[1 - side]) / network / segment
        return made / Raw(payload) if payload else made

    def send(self, side: int, payload: bytes = b"", flags: str = "PA", captured: bool = True) -> Packet:
        made = self.packet(side, self.next[side], flags, payload)
        self.next[side] += len(payload) + ("S" in flags) + ("F" in flags)
        if captured:
            self.packets.append(made)
        return made

    def connect(self, encrypted: bool = True, seed: int = 0) -> Tcp:
        self.send(0, hello(1, seed) if encrypted else b"", "S")
        self.send(1, hello(2, seed) if encrypted else b"", "SA")
        self.send(0, b"", "A")
        return self

    def exchange(self) -> Tcp:
        """Connect, three records one way, two the other, both ends closed in order."""
        self.connect()
        for record in sealed([139, 139, 32]):
            self.send(0, record)
        self.send(1, b"".join(sealed([344, 0], final=True)), "FPA")
        self.send(0, sealed([0], True, wire=138 + 66 + 310, plain=310)[0], "FPA")
        self.send(1, b"", "A")
        return self


def written(folder: Path, packets: Iterable[Packet], name: str = "wire.pcap") -> str:
    path = str(folder / name)
    with PcapWriter(path, linktype=1) as writer:
        for packet in packets:
            writer.write(packet)
    return path


def read(folder: Path, packets: Iterable[Packet], ports: list[int] | None = None) -> Report:
    return decode(written(folder, packets), ports)


def only(report: Report) -> Conversation:
    assert len(report.conversations) == 1
    return report.conversations[0]


@pytest.mark.parametrize("version", [4, 6])
def test_a_whole_connection_is_named(tmp_path: Path, version: int) -> None:
    report = read(tmp_path, Tcp(version=version).exchange().packets)
    found = only(report)
    assert found.verdict is Verdict.ENCRYPTED and report.clean
    client, server = found.halves
    assert client.greeting is not None and client.greeting.kind == 1 and client.greeting.key_id == KEY_ID
    assert server.greeting is not None and server.greeting.kind == 2
    runs = [Run(138, 0, 2, 139, False), Run(460, 278, 1, 32, False), Run(514, 310, 1, 0, True)]
    assert client.listed == runs
    assert server.listed == [Run(138, 0, 1, 344, False), Run(504, 344, 1, 0, True)]
    assert (client.records, client.plain, client.bytes) == (4, 310, 310 + 4 * 22)
    assert client.final and client.fin and server.final and not found.notes
    assert client.name == ("10.7.0.1:40000" if version == 4 else "[fd00::1]:40000")


def test_each_record_is_reported_when_asked_for(tmp_path: Path) -> None:
    seen: list[tuple[str, int]] = []
    path = written(tmp_path, Tcp().exchange().packets)
    decode(path, None, lambda _, half, record: seen.append((half.name, record.wire)))
    assert [wire for name, wire in seen if name.startswith("10.7.0.1")] == [138, 299, 460, 514]


def test_segmentation_order_and_repetition_do_not_matter(tmp_path: Path) -> None:
    tcp = Tcp(isn=(0xFFFFFF00, 5)).connect()
    stream = b"".join(sealed([1000, 32767, 1, 500] * 3))
    start, source = tcp.next[0], random.Random(7)
    cuts = sorted({0, len(stream), *(source.randrange(len(stream)) for _ in range(60))})
    pieces = [tcp.packet(0, start + a, "A", stream[a:b]) for a, b in pairwise(cuts)]
    again = [a for a in cuts[::5] if a + 3000 < len(stream)]
    pieces += [tcp.packet(0, start + a, "A", stream[a : a + 3000]) for a in again]
    source.shuffle(pieces)
    report = read(tmp_path, [*tcp.packets, *pieces, *Tcp(port=40001).exchange().packets])
    first = report.conversations[0]
    assert report.clean and first.client.records == 12 and first.client.bytes == len(stream)
    assert first.client.plain == 3 * (1000 + 32767 + 1 + 500)
    assert not first.client.altered


def test_batches_of_65535_bytes_are_read_whole(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    records = b"".join(sealed([1380] * 46 + [837]))
    batch = tcp.send(0, records)
    assert len(batch) == 14 + 40 + len(records) and len(records) > 65000
    del batch[IP].len
    report = read(tmp_path, tcp.packets)
    runs = [Run(138, 0, 46, 1380, False), Run(64630, 63480, 1, 837, False)]
    assert report.clean and only(report).client.listed == runs


def test_a_batch_whose_ip_length_is_left_to_the_nic_is_read(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([700])[0])[IP].len = 0
    report = read(tmp_path, tcp.packets)
    assert report.clean and only(report).client.records == 1


def test_repeated_syns_and_probes_change_nothing(tmp_path: Path) -> None:
    tcp = Tcp()
    tcp.send(0, hello(1), "S")
    tcp.packets.append(tcp.packets[-1])
    tcp.send(1, hello(2), "SA")
    tcp.packets.append(tcp.packets[-1])
    tcp.send(0, b"", "A")
    tcp.send(0, sealed([32])[0])
    tcp.packets.append(tcp.packet(0, tcp.next[0] - 1, "A", b"\xaa"))
    tcp.packets.append(tcp.packet(0, tcp.next[0] - 1, "A"))
    tcp.packets.append(tcp.packets[-3])
    report = read(tmp_path, tcp.packets)
    assert report.clean and only(report).client.retransmitted == 138 + 54


def test_a_retransmission_with_other_contents_is_not_clean(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    start = tcp.next[0]
    record = sealed([32])[0]
    tcp.send(0, record)
    tcp.packets.append(tcp.packet(0, start, "A", record[:-1] + bytes([record[-1] ^ 1])))
    report = read(tmp_path, tcp.packets)
    assert not report.clean and only(report).client.altered == 54
    assert "10.7.0.1:40000 repeated 54 bytes with other contents" in only(report).notes


def test_plaintext_is_named_with_its_message(tmp_path: Path) -> None:
    tcp = Tcp().connect(encrypted=False)
    tcp.send(0, message("version", bytes(115)))
    tcp.send(1, message("version", bytes(115)) + message("verack"))
    report = read(tmp_path, tcp.packets)
    found = only(report)
    assert found.verdict is Verdict.PLAINTEXT and not report.clean
    assert found.client.listed == [Piece(Finding.PLAINTEXT, 0, 139, "MultiChain/Bitcoin message 'version'")]
    assert found.server.found[Finding.PLAINTEXT] == 139 + 24


def test_other_bytes_without_a_handshake_are_not_called_encrypted(tmp_path: Path) -> None:
    tcp = Tcp().connect(encrypted=False)
    tcp.send(0, b"".join(sealed([100, 100, 100])))
    report = read(tmp_path, tcp.packets)
    assert only(report).verdict is Verdict.FOREIGN and not report.clean
    assert only(report).client.records == 0


def test_plaintext_in_the_midst_of_records_is_found(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([200])[0])
    tcp.send(0, message("ping", bytes(8)))
    tcp.send(0, sealed([200], wire=392, plain=200)[0])
    report = read(tmp_path, tcp.packets)
    assert only(report).verdict is Verdict.PLAINTEXT
    expected = Piece(Finding.PLAINTEXT, 360, 32 + 222, "MultiChain/Bitcoin message 'ping'")
    assert only(report).client.listed[1] == expected


def test_a_peer_without_mcencrypt_gets_a_plaintext_stream_in_the_hellos_place(tmp_path: Path) -> None:
    tcp = Tcp()
    tcp.send(0, hello(1), "S")
    tcp.next[0] -= 138
    tcp.send(1, b"", "SA")
    tcp.send(0, b"", "A")
    tcp.send(0, message("version", bytes(115)))
    found = only(read(tmp_path, tcp.packets))
    assert found.verdict is Verdict.PLAINTEXT
    assert found.client.listed[0].wire == 0 and not found.client.altered
    without_answer = only(read(tmp_path, [tcp.packets[0], *tcp.packets[2:]]))
    assert without_answer.verdict is Verdict.PLAINTEXT and not without_answer.client.altered


def test_a_record_with_a_wrong_header_is_not_accounted_for(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    records = sealed([100] * 6)
    records[2] = records[2][:5] + b"\x77" + records[2][6:]
    for record in records:
        tcp.send(0, record)
    report = read(tmp_path, tcp.packets)
    client = only(report).client
    assert only(report).verdict is Verdict.PARTLY and not report.clean
    assert client.found[Finding.UNKNOWN] == 122 and client.records == 5
    assert client.listed[1] == Piece(Finding.UNKNOWN, 138 + 244, 122, "before the first record found")


def test_bytes_after_final_are_not_accounted_for(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([10], final=True)[0])
    tcp.send(0, sealed([10], wire=170, plain=10)[0])
    client = only(read(tmp_path, tcp.packets)).client
    assert client.listed[1] == Piece(Finding.UNKNOWN, 170, 32, "after FINAL")


def test_a_fin_without_final_is_noted(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([10])[0], "FPA")
    notes = only(read(tmp_path, tcp.packets)).notes
    assert notes == ["10.7.0.1:40000 closed with a FIN without a FINAL record"]


def test_the_record_that_the_captures_end_cuts_is_no_fault(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, b"".join(sealed([100, 1000]))[:500])
    report = read(tmp_path, tcp.packets)
    client = only(report).client
    assert report.clean
    assert client.listed[-1] == Piece(Finding.INCOMPLETE, 260, 378, "of 1022 bytes")


def test_a_gap_that_was_acknowledged_is_said_and_the_records_behind_it_are_found(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    for number, record in enumerate(sealed([100] * 10)):
        tcp.send(0, record, captured=number not in (3, 4))
    tcp.send(1, b"", "A")
    report = read(tmp_path, tcp.packets)
    client = only(report).client
    assert only(report).verdict is Verdict.PARTLY and not report.clean
    assert client.found == {**dict.fromkeys(Finding, 0), Finding.GAP: 244}
    assert client.records == 8 and client.listed[1] == Piece(Finding.GAP, 138 + 366, 244, "")
    assert client.listed[2] == Run(138 + 610, 500, 5, 100, False)


def test_a_gap_inside_a_record_keeps_the_place(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    long, short = sealed([3000, 100])
    tcp.send(0, long[:1000])
    tcp.send(0, long[1000:2000], captured=False)
    tcp.send(0, long[2000:] + short)
    client = only(read(tmp_path, tcp.packets)).client
    assert client.records == 1 and client.found[Finding.UNKNOWN] == 0
    assert client.found[Finding.GAP] == 1000 and client.found[Finding.INCOMPLETE] == 2022


def test_a_long_gap_is_given_up_once_it_was_acknowledged(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    records = sealed([30000] * (2 * MAX_PATIENCE // 30000 + 2))
    tcp.send(0, records[0], captured=False)
    for record in records[1:]:
        tcp.send(0, record)
        tcp.send(1, b"", "A")
    client = only(read(tmp_path, tcp.packets)).client
    assert client.records == len(records) - 1 and client.found[Finding.GAP] == 30022


def test_what_the_capture_missed_at_the_end_is_a_gap(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([100])[0])
    tcp.send(0, sealed([100], wire=260, plain=100)[0], captured=False)
    tcp.send(1, b"", "A")
    report = read(tmp_path, tcp.packets)
    assert only(report).client.found[Finding.GAP] == 121 and not report.clean


def test_packets_cut_by_the_snapshot_length_are_gaps(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, b"".join(sealed([1000, 100])))
    path = str(tmp_path / "short.pcap")
    with PcapWriter(path, linktype=1) as writer:
        writer.write_header(None)
        for packet in tcp.packets:
            raw = bytes(packet)
            writer.write_packet(raw[:300], wirelen=len(raw))
        raw = bytes(tcp.send(1, b"", "A"))
        writer.write_packet(raw, wirelen=len(raw))
    report = decode(path)
    assert not report.clean and only(report).client.found[Finding.GAP] > 800


@pytest.mark.parametrize("offset", [0, 50])
def test_a_capture_that_begins_in_mid_stream_is_understood(tmp_path: Path, offset: int) -> None:
    tcp = Tcp()
    stream = b"".join(sealed([1380] * 8, wire=10**6, plain=0xFFFFF000))
    tcp.send(1, stream[offset:3000])
    tcp.send(1, stream[3000:])
    tcp.send(0, b"", "A")
    report = read(tmp_path, tcp.packets)
    found = only(report)
    assert found.server.name == "10.7.0.2:7331"
    assert "no SYN in the capture: wire offsets count from the first byte captured" in found.notes
    if offset:
        # The first record's start is not there; the second is only proven by the third.
        assert found.server.records in (5, 7) and found.server.found[Finding.HEAD] and not report.clean
    else:
        assert report.clean and found.server.listed == [Run(0, 0xFFFFF000, 8, 1380, False)]


def test_plaintext_that_begins_in_mid_stream_is_named(tmp_path: Path) -> None:
    tcp = Tcp()
    tcp.send(0, random.Random(3).randbytes(5000) + message("ping", bytes(8)))
    report = read(tmp_path, tcp.packets)
    assert only(report).verdict is Verdict.PLAINTEXT and not report.clean


def test_a_stream_that_is_never_understood_is_given_up(tmp_path: Path) -> None:
    tcp = Tcp()
    noise = random.Random(11).randbytes(SEARCH_LIMIT * 2)
    for at in range(0, len(noise), 1400):
        tcp.send(0, noise[at : at + 1400])
    found = only(read(tmp_path, tcp.packets))
    assert found.verdict is Verdict.FOREIGN
    assert found.client.found[Finding.UNKNOWN] == len(noise) and not found.client.records


def test_a_port_used_again_is_another_connection(tmp_path: Path) -> None:
    first = Tcp(isn=(1000, 2000)).exchange()
    second = Tcp(isn=(900_000, 7_000_000)).connect(seed=1)
    second.send(0, sealed([55])[0])
    cut_short = Tcp(isn=(1000, 2000)).connect()
    cut_short.send(0, sealed([77])[0])
    for old in (first.packets, cut_short.packets):
        report = read(tmp_path, [*old, *second.packets])
        assert [one.verdict for one in report.conversations] == [Verdict.ENCRYPTED] * 2 and report.clean
        assert report.conversations[1].client.listed == [Run(138, 0, 1, 55, False)]


def test_a_syn_from_anyone_does_not_end_a_living_connection(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([55])[0])
    tcp.packets.append(tcp.packet(0, 0x7000_0000, "S", hello(1, 5), ack=0))
    tcp.packets.append(tcp.packet(1, tcp.next[1], "A"))
    tcp.send(0, sealed([66], wire=215, plain=55)[0])
    tcp.send(1, sealed([10])[0])
    report = read(tmp_path, tcp.packets)
    assert report.clean
    assert only(report).client.listed == [Run(138, 0, 1, 55, False), Run(215, 55, 1, 66, False)]


def test_connections_are_chosen_by_port(tmp_path: Path) -> None:
    plain = Tcp(port=5000)
    plain.ports = (5000, 8332)
    plain.connect(encrypted=False).send(0, message("version"))
    packets = [*Tcp().exchange().packets, *plain.packets]
    assert not read(tmp_path, packets).clean
    assert read(tmp_path, packets, [PORT]).clean
    assert not read(tmp_path, packets, [8332]).clean
    assert not read(tmp_path, packets, [9999]).clean


def test_silence_is_not_clean(tmp_path: Path) -> None:
    report = read(tmp_path, Tcp().connect().packets)
    assert only(report).verdict is Verdict.EMPTY and not report.clean
    syn = Tcp()
    syn.send(0, hello(1), "S")
    assert only(read(tmp_path, syn.packets)).notes == ["the SYN was not answered"]


def test_other_link_layers_and_headers(tmp_path: Path) -> None:
    expected = 4
    packets = Tcp().exchange().packets
    tagged = [Ether(src=MACS[0], dst=MACS[1]) / Dot1Q(vlan=7) / packet[IP] for packet in packets]
    assert only(read(tmp_path, tagged)).client.records == expected
    raw = str(tmp_path / "raw.pcap")
    with PcapWriter(raw, linktype=101) as writer:
        for packet in packets:
            writer.write(bytes(packet[IP]))
    assert only(decode(raw)).client.records == expected
    cooked = str(tmp_path / "cooked.pcap")
    with PcapWriter(cooked, linktype=113) as writer:
        for packet in packets:
            writer.write(bytes(14) + b"\x08\x00" + bytes(packet[IP]))
    assert only(decode(cooked)).client.records == expected
    longer = []
    for packet in Tcp(version=6).exchange().packets:
        inner = packet[IPv6].payload
        packet[IPv6].remove_payload()
        longer.append(packet / IPv6ExtHdrDestOpt() / inner)
    assert only(read(tmp_path, longer)).client.records == expected
    padded = [Ether(bytes(packet).ljust(64, b"\0")) for packet in packets]
    assert read(tmp_path, padded).clean


def test_an_unknown_link_layer_is_an_error(tmp_path: Path) -> None:
    path = str(tmp_path / "radio.pcap")
    with PcapWriter(path, linktype=127) as writer:
        writer.write(bytes(100))
    with pytest.raises(OperatorError, match="unknown link type 127"):
        decode(path)


def test_pcapng_gzip_and_standard_input(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    packets = Tcp().exchange().packets
    modern = str(tmp_path / "wire.pcapng")
    with PcapNgWriter(modern) as writer:
        for packet in packets:
            writer.write(packet)
    assert decode(modern).clean
    classic = Path(written(tmp_path, packets))
    squeezed = tmp_path / "wire.pcap.gz"
    squeezed.write_bytes(gzip.compress(classic.read_bytes()))
    assert decode(str(squeezed)).clean
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(classic.read_bytes())))
    assert decode("-").clean


def test_fragments_and_damage_spoil_the_verdict(tmp_path: Path) -> None:
    packets = Tcp().exchange().packets
    fragment = packets[3].copy()
    fragment[IP].flags = "MF"
    report = read(tmp_path, [*packets, fragment])
    assert report.oddities == {"IP fragment of a TCP segment": 1} and not report.clean


@pytest.mark.parametrize("content", [b"", b"not a capture at all", b"\xd4\xc3\xb2\xa1"])
def test_what_is_no_capture_is_one_clear_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "no.pcap"
    path.write_bytes(content)
    with pytest.raises(OperatorError, match="is no pcap or pcapng file"):
        decode(str(path))
    with pytest.raises(OperatorError, match=r"cannot read .*: No such file"):
        decode(str(tmp_path / "absent.pcap"))


def test_the_dissector_names_the_fields() -> None:
    dissector.bind(PORT)
    tcp = Tcp()
    syn = Ether(bytes(tcp.send(0, hello(1), "S")))
    assert syn[Hello].kind == 1 and syn[Hello].key_id == KEY_ID
    assert bytes(syn[Hello]) == hello(1) and KEY_ID.hex() in syn[Hello].mysummary()
    records = sealed([20, 0], final=True, plain=0x01020304)
    data = Ether(bytes(tcp.send(1, b"".join(records))))
    first = data[Record]
    assert (first.length, first.final, first.plain_offset) == (20, 0, 0x01020304)
    second = first.payload
    assert isinstance(second, Record) and second.final == 1 and second.plain_offset == 0x01020318
    assert bytes(first) == b"".join(records)


def test_the_dissector_builds_what_it_reads() -> None:
    made = bytes(Record(plain_offset=5, ciphertext=b"x" * 300, tag=b"t" * 16))
    assert made == struct.pack("!HI", 300, 5) + b"x" * 300 + b"t" * 16
    assert len(bytes(Hello())) == 138


def test_every_byte_is_accounted_for_whatever_comes() -> None:
    source = random.Random(5)
    for _ in range(300):
        records: list[int] = []
        pieces: list[int] = []
        parser = StreamParser(
            138,
            0 if source.random() < 0.5 else None,
            lambda record, records=records: records.append(22 + record.length),  # type: ignore[misc]
            lambda piece, pieces=pieces: pieces.append(piece.size),  # type: ignore[misc]
        )
        stream = b"".join(sealed(source.choices([0, 1, 50, 1380], k=30)))
        total = 0
        while stream:
            part, stream = stream[: (size := source.choice([1, 5, 22, 100, 1402]))], stream[size:]
            total += len(part)
            chance = source.random()
            if chance < 0.1:
                parser.gap(len(part))
            elif chance < 0.15:
                parser.feed(source.randbytes(len(part)))
            else:
                parser.feed(part)
        parser.end()
        assert sum(records) + sum(pieces) == total
