"""Records: what the wire carries after the handshake.

    length:u16 (bit 15 = FINAL) | plain offset mod 2^32:u32 | ciphertext | tag:16

The first 6 bytes are associated data.  The nonce is 4 zero bytes and the 64-bit wire offset of the record's first
byte, big-endian, which is Noise's layout for AES-GCM (12.3); a wire offset is sealed once, so a nonce is used once.
The plain offset makes a record self-describing: it opens and lands correctly in whatever order records come.

Keys change with the wire offset: epoch = wire offset >> epoch_bits, and each epoch's key is Noise REKEY of
the one before.  Both ends derive it from the offset; nothing is signalled.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

import mcencrypt.core.prim as prim

from .noise import rekey
from .packet import MASK32, Buffer

HEADER: Final = 6
TAG: Final = 16
OVERHEAD: Final = HEADER + TAG
FINAL: Final = 0x8000
LENGTH_MASK: Final = 0x7FFF
#: The largest plaintext of one record, in bytes.
MAX_PLAIN: Final = 0x7FFF
EPOCH_BITS: Final = 32

_header = Struct("!HI").pack
_read_header = Struct("!HI").unpack_from


class Keys:
    """One direction's keys by epoch.

    Remembers the newest epoch that was proven, the one before it (late retransmissions) and
    the ciphers derived for trial; a raw key older than that is gone for good.
    """

    __slots__ = ("_base", "_ciphers", "_epoch", "current", "epoch_bits", "until")

    #: How many epochs ahead of the proven one a record may claim to be.
    AHEAD: Final = 8

    def __init__(self, key: bytes, epoch_bits: int = EPOCH_BITS) -> None:
        self.epoch_bits = epoch_bits
        self._epoch, self._base = 0, key
        #: The proven epoch's cipher, and the wire offset at which that epoch ends.
        self.current, self.until = prim.Cipher(key), 1 << epoch_bits
        #: Ciphers of other epochs.
        self._ciphers: dict[int, prim.Cipher] = {}

    def cipher(self, wire: int) -> prim.Cipher | None:
        """The cipher for a record that starts at `wire`; None if its epoch is out of reach."""
        epoch = wire >> self.epoch_bits
        if epoch == self._epoch:
            return self.current
        if self._epoch < epoch <= self._epoch + self.AHEAD and epoch not in self._ciphers:
            key = self._base
            for number in range(self._epoch + 1, epoch + 1):
                key = rekey(key)
                if number not in self._ciphers:
                    self._ciphers[number] = prim.Cipher(key)
        return self._ciphers.get(epoch)

    def prove(self, wire: int) -> None:
        """A record at `wire` was authentic (or is ours): forget what lies two epochs back."""
        epoch = wire >> self.epoch_bits
        if epoch > self._epoch:
            self._ciphers[self._epoch] = self.current
            for number in range(self._epoch + 1, epoch + 1):
                self._base = rekey(self._base)
                if number >= epoch - 1 and number not in self._ciphers:
                    self._ciphers[number] = prim.Cipher(self._base)
            self.current, self.until = self._ciphers[epoch], epoch + 1 << self.epoch_bits
            self._epoch = epoch
            self._ciphers = {number: cipher for number, cipher in self._ciphers.items() if number >= epoch - 1}


def seal(keys: Keys, data: Buffer, plain: int, wire: int, size: int, final: bool) -> list[bytes]:
    """Seal `data`, which starts at plain offset `plain`, into records of `size` plaintext bytes from `wire` on.

    Returns the records' headers and bodies in wire order, to be joined.  With `final` the last record carries FINAL;
    with no data that is an empty record.
    """
    length = len(data)
    if length <= size:  # a single segment, mostly
        keys.prove(wire)
        cipher = keys.cipher(wire)
        assert cipher is not None, "the epochs of what we seal follow one another"
        header = _header(length | FINAL if final else length, plain & MASK32)
        return [header, cipher.seal(wire, data, header)]
    pieces: list[bytes] = []
    add = pieces.append
    last_start = (length - 1) // size * size
    keys.prove(wire)
    cipher = keys.cipher(wire)
    bits = keys.epoch_bits
    boundary = ((wire >> bits) + 1) << bits
    for at in range(0, length, size):
        if wire >= boundary:
            keys.prove(wire)
            cipher = keys.cipher(wire)
            boundary = ((wire >> bits) + 1) << bits
        assert cipher is not None, "the epochs of what we seal follow one another"
        body = data[at : at + size]
        count = len(body)
        header = _header(count | FINAL if final and at == last_start else count, plain + at & MASK32)
        add(header)
        add(cipher.seal(wire, body, header))
        wire += count + OVERHEAD
    return pieces


def whole_length(data: Buffer) -> int:
    """Bytes of the whole record that starts at the beginning of `data`, as far as its header tells (unverified)."""
    return OVERHEAD + (_read_header(data)[0] & LENGTH_MASK if len(data) >= HEADER else 0)


class Opened:
    """What `open_run` found at the start of some wire bytes."""

    __slots__ = ("chunks", "consumed", "final", "forged", "plain", "plain_length")

    def __init__(self) -> None:
        #: Plaintext of each record, in order; record i + 1 continues the stream where record i ends.
        self.chunks: list[bytes] = []
        #: Wire bytes of these records, and their plaintext bytes.
        self.consumed = self.plain_length = 0
        #: Plain offset of the first, modulo 2^32.
        self.plain = 0
        #: The last of them carries FINAL.
        self.final = False
        #: What follows claims to be a whole record, and its tag does not verify.
        self.forged = False


def open_run(keys: Keys, data: Buffer, wire: int) -> Opened:
    """Open the whole records at the start of `data`, whose first byte has wire offset `wire`.

    Stops before a record that is not all there, at one that does not verify, behind FINAL, and before one that
    does not continue the stream.  Changes no state: the caller calls `keys.prove`.
    """
    opened = Opened()
    add = opened.chunks.append
    at = plain_length = expected = 0
    end = len(data)
    bits = keys.epoch_bits
    cipher = keys.cipher(wire)
    boundary = ((wire >> bits) + 1) << bits
    while at + OVERHEAD <= end:
        length, plain = _read_header(data, at)
        if length >= FINAL:
            opened.final = True
            length &= LENGTH_MASK
        stop = at + length + OVERHEAD
        if at == 0:
            opened.plain = expected = plain
        if stop > end or plain != expected:
            opened.final = False
            break
        if wire >= boundary:
            cipher = keys.cipher(wire)
            boundary = ((wire >> bits) + 1) << bits
        chunk = None if cipher is None else cipher.open(wire, data[at + HEADER : stop], data[at : at + HEADER])
        if chunk is None:
            opened.forged, opened.final = True, False
            break
        add(chunk)
        wire += stop - at
        at = stop
        plain_length += length
        expected = plain + length & MASK32
        if opened.final:
            break
    opened.consumed, opened.plain_length = at, plain_length
    return opened
