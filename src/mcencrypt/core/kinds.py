"""Kinds of TCP options (IANA's registry), and where in a header's options each stands (RFC 9293 section 3.1)."""

from __future__ import annotations

from collections.abc import Iterator

from .checksum import Buffer

END, NOP, MSS, WINDOW_SCALE, SACK_PERMITTED, SACK, TIMESTAMPS = 0, 1, 2, 3, 4, 5, 8
MD5, AUTHENTICATION, MPTCP, FAST_OPEN, EXPERIMENT = 19, 29, 30, 34, 254


def walk(options: Buffer) -> Iterator[tuple[int, int, int]]:
    """(kind, start, end) of each option with a length; stops at END or at the first malformed one."""
    at, end = 0, len(options)
    while at < end:
        kind = options[at]
        if kind == END:
            return
        if kind == NOP:
            at += 1
            continue
        if at + 1 >= end:
            return
        length = options[at + 1]
        if length < 2 or at + length > end:
            return
        yield kind, at, at + length
        at += length
