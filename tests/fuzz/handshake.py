"""Handshakes: whatever arrives as a message is refused in the ways that are meant, unless it is the true one."""

from __future__ import annotations

from random import Random

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core.handshake import MAX_SKEW_MS, NOISE_AT, Answer, Dial, NetworkSecret, Refused
from mcencrypt.core.noise import KeyPair
from mcencrypt.core.replays import ReplayCache
from mcencrypt.core.status import State
from tests.fuzz.source import Source
from tests.helpers.packets import ACK, RST, SYN
from tests.helpers.sides import ISN_A, ISN_B, A, B, Side, make

NOW_MS = 1_750_000_000_000
SECRET = NetworkSecret(b"k" * 32)


def _key(seed: int) -> KeyPair:
    return KeyPair(X25519PrivateKey.from_private_bytes(Random(seed).randbytes(32)))


ALICE, BOB = _key(1), _key(2)


def changed(message: bytes, source: Source) -> bytes:
    """The message with some of its bytes others, cut or longer; with a right mac1 if an insider did it."""
    found = bytearray(message)
    insider = source.byte() & 1
    for _ in range(source.byte() % 4):
        found[source.byte() % len(found)] ^= source.byte()
    found = found[: len(found) - source.byte() % 8] + source.take(source.byte() % 8)
    if insider:
        clear, noise = bytes(found[:14]), bytes(found[NOISE_AT:])
        return clear + SECRET.mac(clear, noise) + noise
    return bytes(found)


def first(source: Source) -> None:
    """Message 1 at a responder."""
    dial = Dial(SECRET, ALICE, _key(source.byte()), NOW_MS + source.near() % 1_200_000 - 600_000)
    hello = source.rest() if source.byte() & 1 else changed(dial.hello, source)
    try:
        answer = Answer(SECRET, BOB, hello, NOW_MS)
        reply, session = answer.reply(_key(300), NOW_MS)
    except Refused as refused:
        assert hello != dial.hello, refused
        return
    assert hello == dial.hello, "another message was accepted"
    there = dial.finish(reply)
    assert (there.sending, there.receiving) == (session.receiving, session.sending)


def second(source: Source) -> None:
    """Message 2 at an initiator."""
    dial = Dial(SECRET, ALICE, _key(source.byte()), NOW_MS)
    reply, session = Answer(SECRET, BOB, dial.hello, NOW_MS).reply(_key(300), NOW_MS)
    hello = source.rest() if source.byte() & 1 else changed(reply, source)
    try:
        assert dial.finish(hello).sending == session.receiving
        assert hello == reply, "another message was accepted"
    except Refused as refused:
        assert hello != reply, refused
        assert dial.finish(reply).receiving == session.sending, "a forged one spoiled it for the true one"


def replays(source: Source) -> None:
    """Many messages at a cache that holds few, by a clock that jumps either way."""
    cache = ReplayCache(limit=4)
    opened: dict[bytes, bytes] = {}
    stamps: dict[bytes, int] = {}
    clock, now = NOW_MS, 0.0
    while source:
        ephemeral, attempt = source.take(1), source.take(1)
        clock += source.number(2) * 50 * (-1 if source.byte() & 1 else 1)
        now += source.byte() * 20
        # a message has one stamp, however often and to whom it is sent
        stamp = stamps.setdefault(ephemeral, clock + source.near() * 100)
        if abs(stamp - clock) > MAX_SKEW_MS:
            continue
        before = len(cache)
        try:
            cache.admit(ephemeral, attempt, stamp, clock, now)
        except Refused as refused:
            assert refused.reason in ("replayed", "clock-skew") and len(cache) <= before
            continue
        assert opened.setdefault(ephemeral, attempt) == attempt, "one message opened two connections"
        assert len(cache) <= 4


def attempts(source: Source) -> None:
    """SYNs and SYN-ACKs at an engine."""
    a, b = Side(1), Side(2)
    true = a.dials()
    b.unix_ms += source.near() % 2_400_000 - 1_200_000
    for _ in range(1 + source.byte() % 3):
        payload = changed(true.payload, source)
        flags = (SYN, SYN | ACK, SYN | RST, SYN | ACK | RST)[source.byte() & 3]
        syn = make(A, B, ISN_A + source.near(), source.near(), flags, payload, source.part()[:40].ljust(40, b"\1"))
        seen = b.ingress(syn)
        if payload != true.payload and flags == SYN:
            assert not isinstance(seen, type(syn)), "a SYN with another message was let in"
        assert not b.injected() or flags != SYN
    if State.HANDSHAKE in b.states():
        b.egress(make(B, A, ISN_B, ISN_A + 1, SYN | ACK))
    # the true one is taken all the same, or refused because it was taken before
    b.unix_ms = NOW_MS
    again = b.ingress(true)
    assert isinstance(again, type(true)) or b.refused, again


def target(data: bytes) -> None:
    source = Source(data)
    (first, second, replays, attempts)[source.byte() % 4](source)
