"""TCP options (RFC 9293 section 3.1): what a SYN may offer, and SACK blocks (RFC 2018, RFC 2883)."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, NamedTuple

import mcencrypt.core.headers as headers

from .kinds import NOP, SACK, TIMESTAMPS, walk
from .packet import MASK32, Buffer
from .record import OVERHEAD

#: NOP NOP TIMESTAMPS(10): what nearly every segment after the handshake carries, and nothing to translate.
ONLY_TIMESTAMPS: Final = b"\x01\x01\x08\x0a"
#: MSS assumed when a SYN names none (RFC 9293 section 3.7.1).
DEFAULT_MSS: Final = {False: 536, True: 1220}
#: Linux takes no smaller one (tcp_min_snd_mss).
SMALLEST_MSS: Final = 48

_word = Struct("!I").unpack_from
_two_words = Struct("!II").unpack_from

#: What a SACK block becomes: (left edge, right edge, whether it is the first) to new edges, or None if it vanishes.
Block = Callable[[int, int, bool], tuple[int, int] | None]


class SynOptions(NamedTuple):
    """What the options of a SYN or SYN-ACK say, and what of them may be passed on."""

    passed: bytes
    #: Bytes, as passed on.
    mss: int
    window_scale: int | None
    #: TCP MD5 or TCP-AO: signed segments cannot be rewritten.
    signed: bool


def read_syn(options: Buffer, mss_limit: int | None = None, ipv6: bool = False) -> SynOptions:
    """Read a SYN's options, and blank out Fast Open and Multipath.

    Neither can work under mcencrypt: Fast Open puts data where the handshake is, Multipath acknowledges
    positions in a stream that a single connection does not show.

    With `mss_limit`, for a peer's SYN, the MSS becomes min(peer's MSS, limit) less a record's overhead.
    """
    limit = -1 if mss_limit is None else mss_limit
    return SynOptions(*headers.syn_options(options, DEFAULT_MSS[ipv6], limit, OVERHEAD, SMALLEST_MSS))


def timestamps(options: Buffer) -> tuple[int, int] | None:
    """TSval and TSecr (RFC 7323 section 3.2); of several options the last counts, as for tcp_parse_options."""
    found = None
    for kind, start, end in walk(options):
        if kind == TIMESTAMPS and end - start == 10:
            found = _two_words(options, start + 2)
    return found


def with_stamp(options: Buffer, stamp: int) -> bytes:
    """The options with another TSval, where they have one."""
    changed = bytearray(options)
    for kind, start, end in walk(options):
        if kind == TIMESTAMPS and end - start == 10:
            changed[start + 2 : start + 6] = stamp.to_bytes(4, "big")
    return bytes(changed)


def translate_sack(options: Buffer, block: Block) -> bytes | None:
    """The options with each SACK block put through `block`; None if there is no SACK option.

    What vanishes becomes NOPs, so that the header keeps its length.
    """
    if bytes(options[:4]) == ONLY_TIMESTAMPS and len(options) == 12:
        return None
    for kind, start, end in walk(options):
        if kind != SACK:
            continue
        blocks: list[bytes] = []
        for at in range(start + 2, end - 7, 8):
            edges = block(_word(options, at)[0], _word(options, at + 4)[0], at == start + 2)
            if edges is not None:
                blocks.append((edges[0] & MASK32).to_bytes(4, "big") + (edges[1] & MASK32).to_bytes(4, "big"))
        new = b"".join(blocks)
        option = bytes((SACK, 2 + len(new))) + new if new else b""
        return bytes(options[:start]) + option + bytes((NOP,)) * (end - start - len(option)) + bytes(options[end:])
    return None
