"""Sealed keys as text: through mails and chats, for one node, from another."""

from __future__ import annotations

import base64
import re

import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core.noise import KeyPair
from mcencrypt.errors import OperatorError
from mcencrypt.store.keys import Identity, NetworkKey
from mcencrypt.store.sealed import fingerprint, open_key, seal_key

SENDER, RECEIVER, OTHER = (Identity(X25519PrivateKey.from_private_bytes(bytes([n]) * 32)) for n in (1, 2, 3))
KEY = NetworkKey(bytes(range(32)))


def sealed() -> str:
    return seal_key(KEY, RECEIVER.public, SENDER, KeyPair(X25519PrivateKey.generate()), 1795000000.7)


def test_it_comes_back_with_its_sender() -> None:
    opened = open_key(sealed(), "x", RECEIVER)
    assert (opened.key, opened.sender, opened.when) == (KEY, SENDER.public, 1795000000)


def test_two_are_never_the_same_and_the_key_is_in_neither() -> None:
    one, two = sealed(), sealed()
    body = base64.b64decode("".join(one.splitlines()[1:-1]))
    assert one != two and KEY.secret not in body and SENDER.public not in body
    assert max(map(len, one.splitlines())) <= 64


@pytest.mark.parametrize(
    "around",
    [
        lambda text: f"Dear colleague,\n\n{text}\nregards\n",
        lambda text: text.replace("\n", "\r\n"),
        lambda text: "\n".join(f"  {line}  " for line in text.splitlines()),
        lambda text: text.replace("\n", " "),
    ],
    ids=["a mail", "CRLF", "indented", "one line"],
)
def test_what_stands_around_it_does_not_matter(around: object) -> None:
    assert callable(around)
    assert open_key(around(sealed()), "x", RECEIVER).key == KEY


def test_errors_say_what_to_do() -> None:
    with pytest.raises(
        OperatorError, match=rf"mail\.txt: is sealed for another node.*{re.escape(OTHER.public_base64)}"
    ):
        open_key(sealed(), "mail.txt", OTHER)
    lines = sealed().splitlines()
    lines[2] = lines[2][::-1]
    with pytest.raises(OperatorError, match="or was changed on its way"):
        open_key("\n".join(lines), "x", RECEIVER)
    for text in ("", "hello", sealed()[:-30]):
        with pytest.raises(OperatorError, match="holds no sealed key"):
            open_key(text, "x", RECEIVER)
    with pytest.raises(OperatorError, match="no node's public key"):
        seal_key(KEY, bytes(32), SENDER, KeyPair(X25519PrivateKey.generate()), 0)


def test_a_fingerprint_is_short_and_of_letters_that_are_not_mistaken() -> None:
    shown = fingerprint(SENDER.public)
    assert len(shown) == 19 and shown.count("-") == 3 and shown != fingerprint(RECEIVER.public)
    assert not set(shown) & set("ILOU") and shown == shown.upper()
    seen = {letter for number in range(200) for letter in fingerprint(bytes([number]) * 32)}
    assert len(seen) == 33, "all 32, and the hyphen"
