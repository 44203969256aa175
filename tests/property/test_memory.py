"""What a connection costs in memory while it is idle: nothing here depends on speed."""

from __future__ import annotations

import gc
import os
from pathlib import Path
from random import Random
from struct import pack

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core.engine import Engine
from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.keyring import KeyRing
from mcencrypt.core.packet import ACK, PSH, SYN
from mcencrypt.core.policy import Policy, Surroundings
from mcencrypt.interpreted import build

#: Bytes per flow that docs/performance.md names.
BOUND = 4096
FLOWS = 1500
ISN_A, ISN_B = 1000, 70_000
SYN_OPTIONS = b"\x02\x04\x05\xb4\x01\x03\x03\x07\x04\x02\x08\x0a" + bytes(8)
STAMPS = b"\x01\x01\x08\x0a" + bytes(8)


def engine(seed: int) -> Engine:
    dice = Random(seed)
    around = Surroundings(dice.randbytes, lambda: 1_700_000_000_000, lambda path: 1500)
    key = X25519PrivateKey.from_private_bytes(dice.randbytes(32))
    return Engine(Policy(), KeyRing([NetworkSecret(bytes(32))]), key, around)


def packet(port: int, from_a: bool, seq: int, ack: int, flags: int, options: bytes = STAMPS, length: int = 0) -> bytes:
    ends, ports = (b"\x0a\0\0\x01", b"\x0a\0\0\x02"), (port, 8571)
    if not from_a:
        ends, ports = ends[::-1], ports[::-1]
    tcp = pack("!HHIIBBHHH", *ports, seq, ack, (20 + len(options)) << 2, flags, 50000, 0, 0) + options + bytes(length)
    return pack("!BBHHHBBH", 0x45, 2, 20 + len(tcp), 1, 0x4000, 64, 6, 0) + b"".join(ends) + tcp


def connect(a: Engine, b: Engine, port: int) -> None:
    """A connection from a to b that has carried 100 bytes each way."""
    for from_a, seq, ack, flags, options, length in (
        (True, ISN_A, 0, SYN, SYN_OPTIONS, 0),
        (False, ISN_B, ISN_A + 1, SYN | ACK, SYN_OPTIONS, 0),
        (True, ISN_A + 1, ISN_B + 1, ACK, STAMPS, 0),
        (True, ISN_A + 1, ISN_B + 1, ACK | PSH, STAMPS, 100),
        (False, ISN_B + 1, ISN_A + 101, ACK | PSH, STAMPS, 100),
        (True, ISN_A + 101, ISN_B + 101, ACK, STAMPS, 0),
    ):
        near, far = (a, b) if from_a else (b, a)
        wire = near.egress(packet(port, from_a, seq, ack, flags, options, length), 1, 1.0)
        assert isinstance(wire, bytes) and isinstance(far.ingress(wire, 0, 1.0), bytes)
        for one in (a, b):
            one.outcome.events.clear()
            one.outcome.ahead.clear()


def resident() -> int:
    """Bytes of this process that are in memory (proc_pid_statm(5))."""
    gc.collect()
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.skipif(build() == "interpreted", reason="the bound is that of what is compiled")
def test_an_idle_flow_takes_no_more_memory_than_we_say() -> None:
    a, b = engine(1), engine(2)
    for port in range(1000, 1200):
        connect(a, b, port)
    before = resident()
    for port in range(2000, 2000 + FLOWS):
        connect(a, b, port)
    assert len(list(a.connections(1.0))) == len(list(b.connections(1.0))) == 200 + FLOWS
    assert (resident() - before) / (2 * FLOWS) < BOUND


def test_flows_that_are_gone_leave_nothing_behind() -> None:
    a, b = engine(1), engine(2)

    def pass_by(ports: range) -> None:
        for port in ports:
            connect(a, b, port)
        for one in (a, b):
            for key in one.table.encrypted_keys():
                one.table.forget(key)
            one.outcome.events.clear()

    pass_by(range(1000, 1300))
    before = resident()
    for _ in range(4):
        pass_by(range(1000, 1300))
    # What remains of each is its handshake in the replay cache, which is bounded.
    assert (resident() - before) / (2 * 4 * 300) < 1024
    assert list(a.connections(1.0)) == []
