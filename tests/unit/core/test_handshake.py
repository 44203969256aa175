"""The handshake messages around Noise."""

from __future__ import annotations

import hashlib
from random import Random

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core.handshake import (
    HELLO_LENGTH,
    MAX_SKEW_MS,
    Answer,
    Carrier,
    Dial,
    NetworkSecret,
    Refused,
    Session,
)
from mcencrypt.core.noise import KeyPair

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
SECRET, OTHER = NetworkSecret(KEY), NetworkSecret(OTHER_KEY)
NOW = 1_750_000_000_000


def pair(seed: int) -> KeyPair:
    return KeyPair(X25519PrivateKey.from_private_bytes(Random(seed).randbytes(32)))


ALICE, BOB = pair(1), pair(2)


def dial(secret: NetworkSecret = SECRET, at: int = NOW, ephemeral: int = 11) -> Dial:
    return Dial(secret, ALICE, pair(ephemeral), at)


def answer(hello: bytes, at: int = NOW, secret: NetworkSecret = SECRET) -> Answer:
    return Answer(secret, BOB, hello, at)


def refusal(hello: bytes, at: int = NOW, secret: NetworkSecret = SECRET) -> Refused:
    with pytest.raises(Refused) as caught:
        answer(hello, at, secret)
    return caught.value


def flipped(data: bytes, bit: int) -> bytes:
    damaged = bytearray(data)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


# -- both ends


def test_both_ends_have_the_same_keys_and_know_each_other() -> None:
    ours = dial()
    theirs = answer(ours.hello)
    message, session = theirs.reply(pair(12), NOW + 5)
    finished = ours.finish(message)
    assert finished == Session(session.receiving, session.sending, BOB.public)
    assert session.remote_static == ALICE.public
    assert session.sending != session.receiving
    assert len(session.sending) == len(session.receiving) == 32
    assert theirs.timestamp_ms == NOW
    assert theirs.ephemeral == pair(11).public


def test_the_messages_look_as_documented() -> None:
    message_1 = dial().hello
    message_2, _ = answer(message_1).reply(pair(12), NOW)
    key_id = hashlib.blake2s(key=KEY, person=b"mcen kid", digest_size=8).digest()
    for kind, message, ephemeral in ((1, message_1, 11), (2, message_2, 12)):
        assert len(message) == HELLO_LENGTH == 138
        assert message[:14] == b"mcen\x01" + bytes((kind,)) + key_id
        mac = hashlib.blake2s(message[:14] + message[30:], key=KEY, person=b"mcen mac", digest_size=16)
        assert message[14:30] == mac.digest()
        assert message[30:62] == pair(ephemeral).public
        assert ALICE.public not in message
        assert BOB.public not in message
        assert KEY not in message


def test_each_ephemeral_key_makes_keys_of_its_own() -> None:
    ours = dial()
    theirs = answer(ours.hello)
    first, second = (theirs.reply(pair(seed), NOW) for seed in (12, 13))
    assert first[0] != second[0]
    assert len({first[1].sending, first[1].receiving, second[1].sending, second[1].receiving}) == 4
    # Whichever of the two messages arrives, and also one after the other.
    for message, session in (first, second, first):
        assert ours.finish(message)[:2] == (session.receiving, session.sending)
    assert dial(ephemeral=14).hello != ours.hello


# -- refusals


def test_a_wrong_network_key_is_named() -> None:
    refused = refusal(dial(OTHER).hello)
    assert refused.reason == "wrong-key"
    assert OTHER.key_id.hex() in str(refused)
    assert SECRET.key_id.hex() in str(refused)
    assert str(refused).index(OTHER.key_id.hex()) < str(refused).index(SECRET.key_id.hex()), "its own comes first"


def test_a_wrong_network_key_is_named_in_message_2_as_well() -> None:
    foreign, _ = answer(dial(OTHER).hello, secret=OTHER).reply(pair(12), NOW)
    with pytest.raises(Refused) as caught:
        dial().finish(foreign)
    assert caught.value.reason == "wrong-key"
    assert OTHER.key_id.hex() in str(caught.value)


@pytest.mark.parametrize(
    ("hello", "reason"),
    [
        (b"", "not-a-handshake"),
        (b"mcen", "not-a-handshake"),
        (b"mcen\x01\x01" + bytes(7), "not-a-handshake"),
        (b"GET / HTTP/1.1\r\n\r\n" * 8, "not-a-handshake"),
        (bytes(138), "not-a-handshake"),
        (b"mcen\x02" + bytes(133), "other-version"),
        (b"mcen\x01\x01" + bytes(132), "wrong-key"),
        (b"mcen\x01\x01" + SECRET.key_id, "malformed-handshake"),
        (b"mcen\x01\x01" + SECRET.key_id + bytes(123), "malformed-handshake"),
        (b"mcen\x01\x01" + SECRET.key_id + bytes(125), "malformed-handshake"),
        (b"mcen\x01\x01" + SECRET.key_id + bytes(124), "forged-handshake"),
        (b"mcen\x01\x02" + SECRET.key_id + bytes(124), "malformed-handshake"),
        (dial().hello[:-1], "malformed-handshake"),
        (dial().hello + b"\0", "malformed-handshake"),
        (answer(dial().hello).reply(pair(12), NOW)[0], "malformed-handshake"),  # a message 2
    ],
)
def test_what_is_no_message_1_is_refused(hello: bytes, reason: str) -> None:
    assert refusal(hello).reason == reason


def test_every_flipped_bit_of_message_1_is_refused() -> None:
    hello = dial().hello
    for bit in range(len(hello) * 8):
        reason = refusal(flipped(hello, bit)).reason
        at = bit // 8
        expected = (
            "not-a-handshake" if at < 4
            else "other-version" if at == 4
            else "malformed-handshake" if at == 5
            else "wrong-key" if at < 14
            else "forged-handshake"
        )  # fmt: skip
        assert reason == expected, f"bit {bit}"


def test_every_flipped_bit_of_message_2_is_refused() -> None:
    ours = dial()
    message, session = answer(ours.hello).reply(pair(12), NOW)
    for bit in range(len(message) * 8):
        with pytest.raises(Refused):
            ours.finish(flipped(message, bit))
    assert ours.finish(message).sending == session.receiving, "the true one still counts"


def test_noise_protects_what_a_holder_of_the_network_key_changes() -> None:
    """mac1 is made anew here, as anybody in the network can: the Noise message has to notice by itself."""
    ours = dial()
    noise_1 = ours.hello[30:]
    message, session = answer(ours.hello).reply(pair(12), NOW)
    noise_2 = message[30:]
    for bit in range(0, len(noise_1) * 8, 3):
        assert refusal(SECRET.seal(1, flipped(noise_1, bit))).reason == "forged-handshake"
        with pytest.raises(Refused) as caught:
            ours.finish(SECRET.seal(2, flipped(noise_2, bit)))
        assert caught.value.reason == "forged-handshake"
    assert ours.finish(message).sending == session.receiving


def test_message_2_belongs_to_one_message_1() -> None:
    message, _ = answer(dial(ephemeral=11).hello).reply(pair(12), NOW)
    with pytest.raises(Refused):
        dial(ephemeral=13).finish(message)


@pytest.mark.parametrize("low", [bytes(32), b"\x01" + bytes(31)])
def test_a_low_order_ephemeral_key_in_message_2_is_refused(low: bytes) -> None:
    ours = dial()
    with pytest.raises(Refused) as caught:
        ours.finish(SECRET.seal(2, low + bytes(76)))
    assert caught.value.reason == "forged-handshake"


# -- clocks


@pytest.mark.parametrize(
    ("skew_ms", "words"),
    [
        (MAX_SKEW_MS + 1, "600 s ahead of ours"),
        (-MAX_SKEW_MS - 1, "600 s behind ours"),
        (3_600_000, "3600 s ahead of ours"),
        (-86_400_000, "86400 s behind ours"),
    ],
)
def test_a_clock_that_is_off_is_named(skew_ms: int, words: str) -> None:
    refused = refusal(dial(at=NOW + skew_ms).hello)
    assert refused.reason == "clock-skew"
    assert words in str(refused)


@pytest.mark.parametrize("skew_ms", [0, 1, -1, MAX_SKEW_MS, -MAX_SKEW_MS])
def test_a_clock_that_is_close_enough_is_accepted(skew_ms: int) -> None:
    assert answer(dial(at=NOW + skew_ms).hello).timestamp_ms == NOW + skew_ms


@pytest.mark.parametrize("streamed", [False, True])
def test_an_answer_takes_a_message_that_was_checked_as_one_that_it_checks(streamed: bool) -> None:
    carrier = Carrier.STREAM if streamed else Carrier.SYN
    secret, ephemeral = NetworkSecret(b"k" * 32), KeyPair(X25519PrivateKey.generate())
    static = KeyPair(X25519PrivateKey.generate())
    dial = Dial(secret, KeyPair(X25519PrivateKey.generate()), ephemeral, 1000, carrier=carrier)
    noise = secret.check_named(dial.hello, carrier.message_1)
    answers = [Answer(secret, static, dial.hello, 1000, carrier, *given) for given in ((), (noise,))]
    again = KeyPair(X25519PrivateKey.generate())
    assert answers[0].reply(again, 1000) == answers[1].reply(again, 1000)
    assert dial.finish(answers[1].reply(again, 1000)[0])
