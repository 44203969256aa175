"""scapy's packets of what is on the wire."""

from __future__ import annotations

import struct

from scapy.layers.l2 import Ether

from mcencrypt.reading import dissector
from mcencrypt.reading.dissector import Hello, Record
from tests.helpers.captures import (
    KEY_ID,
    PORT,
    Tcp,
    hello,
    sealed,
)


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
