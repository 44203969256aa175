"""Noise IXpsk0 against the public test vectors (flynn/noise, BSD-3-Clause) and against noiseprotocol."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from mcencrypt.core import noise

VECTORS = Path(__file__).with_name("noise-ixpsk0-vectors.txt")


def vectors() -> list[dict[str, bytes]]:
    blocks = VECTORS.read_text().split("\n\n")
    parsed = []
    for block in blocks:
        fields = dict(line.split("=", 1) for line in block.splitlines() if "=" in line)
        if fields:
            assert fields.pop("handshake").encode() == noise.PROTOCOL_NAME
            parsed.append({name: bytes.fromhex(value) for name, value in fields.items()})
    return parsed


def pair(raw: bytes) -> noise.KeyPair:
    return noise.KeyPair(X25519PrivateKey.from_private_bytes(raw))


def generate() -> noise.KeyPair:
    return noise.KeyPair(X25519PrivateKey.generate())


def transport(key: bytes, plaintext: bytes) -> bytes:
    return AESGCM(key).encrypt(bytes(12), plaintext, b"")


def test_there_are_vectors() -> None:
    assert len(vectors()) >= 4


@pytest.mark.parametrize("vector", vectors())
def test_vector(vector: dict[str, bytes]) -> None:
    start = noise.begin(vector["preshared_key"], vector.get("prologue", b""))
    ours = noise.Initiator(start, pair(vector["init_static"]), pair(vector["gen_init_ephemeral"]))
    theirs = noise.Responder(start, pair(vector["resp_static"]))

    message_1 = ours.write_message_1(vector["msg_0_payload"])
    assert message_1 == vector["msg_0_ciphertext"]
    assert theirs.read_message_1(message_1) == vector["msg_0_payload"]
    assert theirs.remote_static == pair(vector["init_static"]).public

    message_2, sends, receives = theirs.write_message_2(vector["msg_1_payload"], pair(vector["gen_resp_ephemeral"]))
    assert message_2 == vector["msg_1_ciphertext"]
    payload, initiator_sends, initiator_receives = ours.read_message_2(message_2)
    assert payload == vector["msg_1_payload"]
    assert ours.remote_static == pair(vector["resp_static"]).public
    assert (initiator_sends, initiator_receives) == (receives, sends)
    assert transport(initiator_sends, vector["msg_2_payload"]) == vector["msg_2_ciphertext"]
    assert transport(sends, vector["msg_3_payload"]) == vector["msg_3_ciphertext"]


def test_handshakes_that_start_alike_do_not_share_a_state() -> None:
    start = noise.begin(bytes(32), b"p")
    static, ephemerals = generate(), [generate(), generate()]
    first, second = (noise.Initiator(start, static, one).write_message_1(b"x") for one in ephemerals)
    assert noise.Initiator(noise.begin(bytes(32), b"p"), static, ephemerals[0]).write_message_1(b"x") == first
    assert noise.Initiator(noise.begin(bytes(32), b"p"), static, ephemerals[1]).write_message_1(b"x") == second


def fresh() -> tuple[noise.Initiator, noise.Responder]:
    start = noise.begin(os.urandom(32), b"p")
    return noise.Initiator(start, generate(), generate()), noise.Responder(start, generate())


def test_every_flipped_bit_of_message_1_is_refused() -> None:
    start, static = noise.begin(os.urandom(32), b"p"), generate()
    message = noise.Initiator(start, generate(), generate()).write_message_1(b"payload")
    for bit in range(len(message) * 8):
        broken = bytearray(message)
        broken[bit // 8] ^= 1 << bit % 8
        with pytest.raises(noise.NoiseError):
            noise.Responder(start, static).read_message_1(bytes(broken))
    assert noise.Responder(start, static).read_message_1(message) == b"payload"


def test_a_forged_message_2_does_not_spoil_the_handshake() -> None:
    initiator, responder = fresh()
    responder.read_message_1(initiator.write_message_1(b""))
    message_2, sending, receiving = responder.write_message_2(b"hello", generate())
    forged = bytearray(message_2)
    forged[-1] ^= 1
    with pytest.raises(noise.NoiseError):
        initiator.read_message_2(bytes(forged))
    assert initiator.remote_static == b""
    assert initiator.read_message_2(message_2) == (b"hello", receiving, sending)


def test_each_answer_to_one_message_1_has_its_own_keys() -> None:
    initiator, responder = fresh()
    responder.read_message_1(initiator.write_message_1(b""))
    first = responder.write_message_2(b"", generate())
    second = responder.write_message_2(b"", generate())
    assert len({*first[1:], *second[1:]}) == 4


@pytest.mark.parametrize("length", [0, 31, 95])
def test_short_messages_are_refused(length: int) -> None:
    initiator, responder = fresh()
    with pytest.raises(noise.NoiseError):
        responder.read_message_1(bytes(length))
    with pytest.raises(noise.NoiseError):
        initiator.read_message_2(bytes(length))


def test_low_order_keys_are_refused() -> None:
    initiator, _ = fresh()
    with pytest.raises(noise.NoiseError, match="low-order"):
        initiator.read_message_2(bytes(96))


def test_against_noiseprotocol() -> None:
    """The second oracle, with random keys and rekeying."""
    from noise.connection import Keypair, NoiseConnection

    psk = os.urandom(32)
    other = NoiseConnection.from_name(b"Noise_IXpsk0_25519_AESGCM_SHA256")
    other.set_as_responder()
    other.set_psks(psk)
    other.set_prologue(b"mcencrypt")
    other.set_keypair_from_private_bytes(Keypair.STATIC, os.urandom(32))
    other.start_handshake()

    ours = noise.Initiator(noise.begin(psk, b"mcencrypt"), generate(), generate())
    assert other.read_message(ours.write_message_1(b"one")) == b"one"
    payload, sending, receiving = ours.read_message_2(bytes(other.write_message(b"two")))
    assert payload == b"two"
    assert other.decrypt(transport(sending, b"three")) == b"three"
    assert bytes(other.encrypt(b"four")) == transport(receiving, b"four")
    cipher = other.noise_protocol.cipher_state_decrypt
    cipher.rekey()
    cipher.n = 0
    assert other.decrypt(transport(noise.rekey(sending), b"five")) == b"five"


def test_an_exchange_that_is_made_ahead_is_the_same() -> None:
    one, other, third = generate(), generate(), generate()
    expected = one.private.exchange(other.private.public_key())
    assert one.exchange(other.public) == expected == other.exchange(one.public)
    one.expect(other.public)
    assert one.exchange(other.public) == expected
    assert one.exchange(third.public) == third.exchange(one.public), "another key than expected"
    one.expect(third.public)
    assert one.exchange(other.public) == expected and one.exchange(third.public) == third.exchange(one.public)


def test_a_key_of_low_order_is_refused_whether_it_was_expected_or_not() -> None:
    one, other = generate(), generate()
    one.expect(bytes(32))
    with pytest.raises(noise.NoiseError):
        one.exchange(bytes(32))
    one.expect(other.public)
    one.expect(bytes(32))
    assert one.exchange(other.public) == other.exchange(one.public)


@pytest.mark.parametrize("vector", vectors())
@pytest.mark.parametrize("right", [True, False])
def test_vector_with_what_is_computed_ahead(vector: dict[str, bytes], right: bool) -> None:
    start = noise.begin(vector["preshared_key"], vector.get("prologue", b""))
    init, resp = pair(vector["gen_init_ephemeral"]), pair(vector["gen_resp_ephemeral"])
    ours = noise.Initiator(start, pair(vector["init_static"]), init)
    theirs = noise.Responder(start, pair(vector["resp_static"]))
    message_1 = ours.write_message_1(vector["msg_0_payload"])
    theirs.read_message_1(message_1)
    init.expect(pair(vector["resp_static"]).public if right else generate().public)
    resp.expect(theirs.remote_static if right else generate().public)
    message_2, sends, receives = theirs.write_message_2(vector["msg_1_payload"], resp)
    assert (message_1, message_2) == (vector["msg_0_ciphertext"], vector["msg_1_ciphertext"])
    payload, initiator_sends, initiator_receives = ours.read_message_2(message_2)
    assert payload == vector["msg_1_payload"] and (initiator_sends, initiator_receives) == (receives, sends)
    assert transport(sends, vector["msg_3_payload"]) == vector["msg_3_ciphertext"]
