"""Addresses as people write them."""

from __future__ import annotations

import pytest

from mcencrypt.errors import OperatorError
from mcencrypt.store.endpoints import endpoint_text, parse_endpoint


@pytest.mark.parametrize(
    ("text", "packed"),
    [
        ("192.0.2.7", b"\xc0\0\2\7"),
        ("192.0.2.7:7331", b"\xc0\0\2\7\x1c\xa3"),
        ("2001:db8::7", bytes.fromhex("20010db8") + bytes(11) + b"\7"),
        ("[2001:db8::7]:7331", bytes.fromhex("20010db8") + bytes(11) + b"\7\x1c\xa3"),
    ],
)
def test_both_ways(text: str, packed: bytes) -> None:
    assert parse_endpoint(f" {text} ") == packed and endpoint_text(packed) == text


def test_brackets_without_a_port() -> None:
    assert parse_endpoint("[2001:db8::7]") == parse_endpoint("2001:db8::7")


@pytest.mark.parametrize(
    "text",
    ["", "node-b", "192.0.2", "192.0.2.7:", "192.0.2.7:0", "192.0.2.7:65536", "192.0.2.7:x", "[192.0.2.7]:1", "::7]:1",
     "2001:db8::7/64", "10.1.0.0/16"],
)  # fmt: skip
def test_what_is_none(text: str) -> None:
    with pytest.raises(OperatorError, match="is not an address"):
        parse_endpoint(text)
