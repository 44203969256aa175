"""Probes between two engines, and what each possible answer is taken for."""

from __future__ import annotations

from random import Random
from struct import pack

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from scapy.layers.inet import IP, TCP
from scapy.layers.inet6 import IPv6

from mcencrypt.core import probing
from mcencrypt.core.addresses import reversed_key
from mcencrypt.core.engine import Engine
from mcencrypt.core.handshake import HELLO_LENGTH, NetworkSecret
from mcencrypt.core.keyring import KeyRing
from mcencrypt.core.packet import ACK, RST, SYN, Segment, bare, rebuild
from mcencrypt.core.policy import Policy, Surroundings
from mcencrypt.core.probing import ProbeResult
from mcencrypt.core.verdict import DROP

OLD, NEW, OTHER = (NetworkSecret(letter * 32) for letter in (b"o", b"n", b"x"))
KEY4 = bytes((10, 0, 0, 1, 10, 0, 0, 2)) + pack("!HH", 40000, 7331)
KEY6 = bytes.fromhex("fd" + 29 * "0" + "1" + "fd" + 29 * "0" + "2") + pack("!HH", 40000, 7331)
ISN_B = 5000


def new(seed: int, *secrets: NetworkSecret, mode: str = "require") -> Engine:
    dice = Random(seed)
    static = X25519PrivateKey.from_private_bytes(dice.randbytes(32))
    around = Surroundings(dice.randbytes, lambda: 1_750_000_000_000, lambda peer, own: 1400)
    return Engine(Policy(mode=mode), KeyRing(secrets or (OLD,)), static, around)


def identity(seed: int) -> bytes:
    return X25519PrivateKey.from_private_bytes(Random(seed).randbytes(32)).public_key().public_bytes_raw()


def begun(
    a: Engine, secret: NetworkSecret = OLD, key: bytes = KEY4, now: float = 10.0, timeout: float = 5.0
) -> tuple[Segment, list[ProbeResult]]:
    """A probe's SYN, and where its result will be."""
    results: list[ProbeResult] = []
    assert a.probing.begin(key, secret, now, timeout, results.append)
    [injection] = a.outcome.injections
    a.outcome.injections.clear()
    assert injection.toward == "network"
    return Segment(injection.packet), results


def answer(syn: Segment, flags: int, acked: int, payload: bytes = b"", seq: int = ISN_B) -> bytes:
    blank = Segment(bare(reversed_key(syn.source_first), seq, 0, flags, 65535))
    return rebuild(blank, seq, syn.seq + 1 + acked, payload)


def only_reset(a: Engine) -> Segment:
    """The reset with which a probe ends."""
    [injection] = a.outcome.injections
    a.outcome.injections.clear()
    reset = Segment(injection.packet)
    assert injection.toward == "network" and reset.flags == RST
    return reset


@pytest.mark.parametrize("key", [KEY4, KEY6])
def test_the_syn_is_one_that_a_kernel_could_have_sent(key: bytes) -> None:
    syn, _ = begun(new(1), key=key)
    packet = (IPv6 if key is KEY6 else IP)(syn.packet)
    again = packet.copy()
    if key is KEY4:
        del again.chksum
    del again[TCP].chksum
    assert bytes(again) == syn.packet, "checksums"
    assert packet[TCP].flags == "S" and (packet[TCP].sport, packet[TCP].dport) == (40000, 7331)
    assert dict(packet[TCP].options)["MSS"] == 1400 - (60 if key is KEY6 else 40)
    assert len(syn.payload()) == HELLO_LENGTH


@pytest.mark.parametrize("key", [KEY4, KEY6])
def test_a_peer_answers_proves_itself_and_forgets(key: bytes) -> None:
    a, b = new(1), new(2)
    syn, results = begun(a, key=key)
    shown = Segment(b.ingress(syn.packet, 0, 10.0))  # type: ignore[arg-type]
    assert not shown.payload() and shown.flags == SYN
    reply = b.egress(answer(syn, SYN | ACK, 0), 0, 10.0)
    assert isinstance(reply, bytes) and len(Segment(reply).payload()) == HELLO_LENGTH
    assert a.ingress(reply, 0, 10.25) is DROP, "our kernel, which knows of nothing, does not see it"
    [result] = results
    assert (result.outcome, result.identity, result.key_id) == ("encrypted", identity(2), OLD.key_id)
    assert result.round_trip == pytest.approx(0.25) and result.offered is True
    reset = only_reset(a)
    assert reset.seq == syn.seq + 1 + HELLO_LENGTH & 0xFFFFFFFF
    seen = Segment(b.ingress(reset.packet, 0, 10.5))  # type: ignore[arg-type]
    assert (seen.flags, seen.seq) == (RST, syn.seq + 1 & 0xFFFFFFFF), "what the kernel there expects"
    assert list(b.connections(11.0)) == [] and list(a.connections(11.0)) == []
    assert not a.probing and a.outcome.refused == {} == b.outcome.refused


def test_a_reset_that_only_guesses_ends_no_attempt() -> None:
    a, b = new(1), new(2)
    syn, _ = begun(a)
    b.ingress(syn.packet, 0, 10.0)
    b.ingress(bare(syn.source_first, syn.seq + 1000, 0, RST), 0, 10.0)
    assert [(one.state, one.age) for one in b.connections(11.0)] == [("handshake", 1.0)]


@pytest.mark.parametrize(
    ("theirs", "tried", "offered"), [((OLD, NEW), OLD, True), ((OLD, NEW), NEW, False), ((NEW, OLD), NEW, True)]
)
def test_a_peer_says_whether_it_offers_the_key(
    theirs: tuple[NetworkSecret, ...], tried: NetworkSecret, offered: bool
) -> None:
    a, b = new(1, OLD, NEW), new(2, *theirs)
    syn, results = begun(a, tried)
    b.ingress(syn.packet, 0, 10.0)
    reply = b.egress(answer(syn, SYN | ACK, 0), 0, 10.0)
    assert isinstance(reply, bytes)
    a.ingress(reply, 0, 10.0)
    assert (results[0].outcome, results[0].key_id, results[0].offered) == ("encrypted", tried.key_id, offered)


@pytest.mark.parametrize(
    ("flags", "acked", "outcome", "words"),
    [
        (SYN | ACK, 0, "no-mcencrypt", "without mcencrypt"),
        (SYN | ACK, HELLO_LENGTH, "stripped", "SYN-ACKs"),
        (RST | ACK, HELLO_LENGTH, "refused", "no mcencrypt was in the way"),
        (RST | ACK, 0, "refused", "took our handshake off"),
    ],
)
def test_each_answer_of_somebody_else_has_its_name(flags: int, acked: int, outcome: str, words: str) -> None:
    a = new(1)
    syn, results = begun(a)
    assert a.ingress(answer(syn, flags, acked), 0, 10.5) is DROP
    [result] = results
    assert result.outcome == outcome and words in result.detail and result.identity == b""
    assert result.offered is None and result.round_trip == pytest.approx(0.5)
    if flags & SYN:
        assert only_reset(a).seq == syn.seq + 1 + acked & 0xFFFFFFFF
    assert not a.outcome.injections and not a.probing and not a.outcome.events


def test_a_message_2_that_does_not_verify_is_not_a_peer() -> None:
    a = new(1)
    for payload, words in ((NEW.seal(2, bytes(108)), NEW.key_id.hex()), (OLD.seal(2, bytes(108)), "not authentic")):
        syn, results = begun(a)
        a.ingress(answer(syn, SYN | ACK, HELLO_LENGTH, payload), 0, 10.0)
        assert results[0].outcome == "not-authentic" and words in results[0].detail
        only_reset(a)


def test_packets_with_other_numbers_are_swallowed_and_end_nothing() -> None:
    a = new(1)
    syn, results = begun(a)
    for packet in (answer(syn, SYN | ACK, 7), answer(syn, RST | ACK, 139), answer(syn, ACK, 0), answer(syn, RST, 0)):
        assert a.ingress(packet, 0, 10.0) is DROP
    assert not results and not a.outcome.injections and len(a.probing) == 1


def test_silence_is_waited_for_with_the_same_syn_again() -> None:
    a = new(1)
    syn, results = begun(a, timeout=5.0)
    at, sent = a.probing.next_time(), []
    while at is not None:
        a.probing.tick(at)
        sent += [(at, bytes(injection.packet)) for injection in a.outcome.injections]
        a.outcome.injections.clear()
        at = a.probing.next_time()
    assert sent == [(11.0, syn.packet), (13.0, syn.packet)]
    assert [(one.outcome, one.attempts, one.round_trip) for one in results] == [("silent", 3, None)]


def test_a_peer_that_has_not_the_key_is_silent_and_both_note_whose_key_it_was() -> None:
    a, b = new(1, NEW), new(2, OLD)
    syn, _ = begun(a, NEW)
    assert b.ingress(syn.packet, 0, 10.0) is DROP
    assert b.admission.refused_keys.of(bytes((10, 0, 0, 1))) == NEW.key_id
    assert b.admission.refused_keys.of(bytes((10, 0, 0, 9))) is None


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MAX_PROBES", 2)
    a = new(1)
    begun(a)
    assert not a.probing.begin(KEY4, OLD, 10.0, 5.0, lambda _: None), "the same addresses and ports"
    begun(a, key=KEY6)
    assert not a.probing.begin(KEY4[:-1] + b"\0", OLD, 10.0, 5.0, lambda _: None)
