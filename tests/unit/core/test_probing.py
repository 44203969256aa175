"""Probes between two engines, and what each possible answer is taken for."""

from __future__ import annotations

import pytest

from mcencrypt.core import probing
from mcencrypt.core.handshake import HELLO_LENGTH, NetworkSecret
from mcencrypt.core.probe import ProbeResult
from mcencrypt.core.status import State
from mcencrypt.core.verdict import DROP
from tests.helpers.packets import ACK, RST, SYN, WORD, Packet, options_of
from tests.helpers.sides import A6, B6, A, B, Side, identity, key_of, make

OLD, NEW, OTHER = (NetworkSecret(letter * 32) for letter in (b"o", b"n", b"x"))
KEY4, KEY6 = key_of(A, B), key_of(A6, B6)


def prober(*secrets: NetworkSecret) -> Side:
    """The side that asks."""
    side = Side(1, secrets or (OLD,), mtu=1400)
    side.now = 10.0
    return side


def peer(*secrets: NetworkSecret) -> Side:
    """The side that is asked."""
    return Side(2, secrets or (OLD,))


def begun(
    a: Side, secret: NetworkSecret = OLD, key: bytes = KEY4, timeout: float = 5.0
) -> tuple[Packet, list[ProbeResult]]:
    """A probe's SYN, and where its result will be."""
    results: list[ProbeResult] = []
    assert a.engine.probing.begin(key, secret, a.now, timeout, results.append)
    [(toward, syn)] = a.injected()
    assert toward == "network"
    return syn, results


def answer(syn: Packet, flags: int, acked: int, payload: bytes = b"") -> Packet:
    """What the far side, or something on the way, sends back."""
    return make((syn.destination, syn.ports[1]), (syn.source, syn.ports[0]), 5000, syn.seq + 1 + acked, flags, payload)


def only_reset(a: Side) -> Packet:
    """The reset with which a probe ends."""
    [(toward, reset)] = a.injected()
    assert toward == "network" and reset.flags == RST
    return reset


@pytest.mark.parametrize("key", [KEY4, KEY6])
def test_the_syn_is_one_that_a_kernel_could_have_sent(key: bytes) -> None:
    syn, _ = begun(prober(), key=key)
    assert syn.flags == SYN and syn.key == key and syn.ack == 0
    options = options_of(syn.options)
    assert int.from_bytes(options[2]) == 1400 - (60 if key is KEY6 else 40)
    assert {3, 4} < set(options), "window scale, and SACK permitted"
    assert len(syn.payload) == HELLO_LENGTH


@pytest.mark.parametrize("key", [KEY4, KEY6])
def test_a_peer_answers_proves_itself_and_forgets(key: bytes) -> None:
    a, b = prober(), peer()
    syn, results = begun(a, key=key)
    shown = b.gets(syn)
    assert not shown.payload and shown.flags == SYN
    reply = b.sends(answer(syn, SYN | ACK, 0))
    assert len(reply.payload) == HELLO_LENGTH
    a.now += 0.25
    assert a.ingress(reply) is DROP, "our kernel, which knows of nothing, does not see it"
    [result] = results
    assert (result.outcome, result.identity, result.key_id) == ("encrypted", identity(2), OLD.key_id)
    assert result.round_trip == pytest.approx(0.25) and result.offered is True
    reset = only_reset(a)
    assert reset.seq == syn.seq + 1 + HELLO_LENGTH & WORD
    seen = b.gets(reset)
    assert (seen.flags, seen.seq) == (RST, syn.seq + 1 & WORD), "what the kernel there expects"
    assert b.states() == a.states() == []
    assert not a.engine.probing and a.refused == {} == b.refused


def test_a_reset_that_only_guesses_ends_no_attempt() -> None:
    a, b = prober(), peer()
    syn, _ = begun(a)
    b.gets(syn)
    b.gets(make(A, B, syn.seq + 1000, 0, RST))
    assert [(one.state, one.age) for one in b.engine.connections(1.0)] == [(State.HANDSHAKE, 1.0)]


@pytest.mark.parametrize(
    ("theirs", "tried", "offered"), [((OLD, NEW), OLD, True), ((OLD, NEW), NEW, False), ((NEW, OLD), NEW, True)]
)
def test_a_peer_says_whether_it_offers_the_key(
    theirs: tuple[NetworkSecret, ...], tried: NetworkSecret, offered: bool
) -> None:
    a, b = prober(OLD, NEW), peer(*theirs)
    syn, results = begun(a, tried)
    b.gets(syn)
    assert a.ingress(b.sends(answer(syn, SYN | ACK, 0))) is DROP
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
    a = prober()
    syn, results = begun(a)
    a.now += 0.5
    assert a.ingress(answer(syn, flags, acked)) is DROP
    [result] = results
    assert result.outcome == outcome and words in result.detail and result.identity == b""
    assert result.offered is None and result.round_trip == pytest.approx(0.5)
    if flags & SYN:
        assert only_reset(a).seq == syn.seq + 1 + acked & WORD
    assert not a.injected() and not a.engine.probing and not a.events()


def test_a_message_2_that_does_not_verify_is_not_a_peer() -> None:
    a = prober()
    for payload, words in ((NEW.seal(2, bytes(108)), NEW.key_id.hex()), (OLD.seal(2, bytes(108)), "not authentic")):
        syn, results = begun(a)
        assert a.ingress(answer(syn, SYN | ACK, HELLO_LENGTH, payload)) is DROP
        assert results[0].outcome == "not-authentic" and words in results[0].detail
        only_reset(a)


def test_packets_with_other_numbers_are_swallowed_and_end_nothing() -> None:
    a = prober()
    syn, results = begun(a)
    for packet in (answer(syn, SYN | ACK, 7), answer(syn, RST | ACK, 139), answer(syn, ACK, 0), answer(syn, RST, 0)):
        assert a.ingress(packet) is DROP
    assert not results and not a.injected() and len(a.engine.probing) == 1


def test_silence_is_waited_for_with_the_same_syn_again() -> None:
    a = prober()
    syn, results = begun(a, timeout=5.0)
    probing = a.engine.probing
    at, sent = probing.next_time(), []
    while at is not None:
        probing.tick(at)
        sent += [(at, packet) for _, packet in a.injected()]
        at = probing.next_time()
    assert sent == [(11.0, syn), (13.0, syn)]
    assert [(one.outcome, one.attempts, one.round_trip) for one in results] == [("silent", 3, None)]


def test_a_peer_that_has_not_the_key_is_silent_and_both_note_whose_key_it_was() -> None:
    a, b = prober(NEW), peer(OLD)
    syn, _ = begun(a, NEW)
    assert b.ingress(syn) is DROP
    assert b.engine.admission.refused_keys.of(A[0]) == NEW.key_id
    assert b.engine.admission.refused_keys.of(bytes((10, 0, 0, 9))) is None


def test_there_are_only_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probing, "MAX_PROBES", 2)
    a = prober()
    begun(a)
    assert not a.engine.probing.begin(KEY4, OLD, 10.0, 5.0, lambda _: None), "the same addresses and ports"
    begun(a, key=KEY6)
    assert not a.engine.probing.begin(KEY4[:-1] + b"\0", OLD, 10.0, 5.0, lambda _: None)
