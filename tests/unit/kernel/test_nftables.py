"""Messages of nf_tables: bytes as the kernel's headers have them, and comparison with what it shows."""

from __future__ import annotations

import pytest

from mcencrypt.kernel import nftables
from mcencrypt.kernel.nftables import encode, shows, string, u32

TREE = ((1, string("mcencrypt")), (4, ((1, u32(3)), (2, u32(-310)))))


def test_attributes_are_padded_and_nested_ones_say_so() -> None:
    # struct nlattr: length without padding, type; NLA_F_NESTED is 0x8000
    assert encode(TREE) == (
        b"\x0e\x00\x01\x00mcencrypt\0\0\0"
        b"\x14\x00\x04\x80"
        b"\x08\x00\x01\x00\x00\x00\x00\x03"
        b"\x08\x00\x02\x00\xff\xff\xfe\xca"
    )


def test_what_was_sent_is_what_is_shown_and_more_may_be() -> None:
    assert shows(encode(TREE), TREE)
    assert shows(encode((*TREE, (9, b"more"))), TREE)
    more = ((1, string("mcencrypt")), (4, ((1, u32(3)), (2, u32(-310)), (3, b"eth0"))))
    assert shows(encode(more), TREE)


@pytest.mark.parametrize(
    "other",
    [
        ((1, string("mcencrypt")),),
        ((1, string("somebody")), TREE[1]),
        (TREE[0], (4, ((1, u32(3)), (2, u32(-300))))),
        (TREE[0], (4, ((1, u32(3)),))),
        (*TREE, TREE[0]),
        (),
    ],
)
def test_anything_else_is_not(other: nftables.Tree) -> None:
    assert not shows(encode(other), TREE)


def test_elements_of_a_list_count_in_order() -> None:
    listed = tuple((1, u32(number)) for number in (1, 2, 3))
    assert shows(encode(listed), listed)
    assert not shows(encode(listed[::-1]), listed)
    assert not shows(encode(listed[:2]), listed)
    assert not shows(encode((*listed, (1, u32(4)))), listed)


@pytest.mark.parametrize("cut", range(1, len(encode(TREE))))
def test_a_message_that_is_cut_off_is_no_match_and_no_error(cut: int) -> None:
    assert not shows(encode(TREE)[:cut], TREE)
