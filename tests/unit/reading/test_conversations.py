"""Connections told apart, and what each of them turned out to be."""

from __future__ import annotations

from pathlib import Path

import pytest

from mcencrypt.reading.conversations import Verdict
from mcencrypt.reading.reassembly import Run
from tests.helpers.captures import (
    KEY_ID,
    Tcp,
    hello,
    message,
    only,
    read,
    sealed,
)


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


def test_a_fin_without_final_is_noted(tmp_path: Path) -> None:
    tcp = Tcp().connect()
    tcp.send(0, sealed([10])[0], "FPA")
    notes = only(read(tmp_path, tcp.packets)).notes
    assert notes == ["10.7.0.1:40000 closed with a FIN without a FINAL record"]


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


def test_silence_is_not_clean(tmp_path: Path) -> None:
    report = read(tmp_path, Tcp().connect().packets)
    assert only(report).verdict is Verdict.EMPTY and not report.clean
    syn = Tcp()
    syn.send(0, hello(1), "S")
    assert only(read(tmp_path, syn.packets)).notes == ["the SYN was not answered"]
