"""A TCP endpoint to try mcencrypt against: RFC 9293 sequence arithmetic, SACK, no congestion control, no clock.

It is as strict as a kernel, and stricter where a kernel would hide a fault: it knows the endpoint at the other end
(`peer`), and compares every byte, acknowledgement and SACK block that reaches it with what that one wrote and has.
What it sends, and how a retransmission is cut, is up to whoever drives it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from random import Random
from struct import pack, unpack_from

from tests.helpers.habits import Habits
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN, URG, WORD, Packet, options_of, parse

#: Largest TCP payload that Linux puts into one GSO packet (IPv6 with timestamps).
BATCH = 64676
#: Answers to bare segments outside the window before time must pass.
CHALLENGES = 20


class Endpoint:
    """One socket.  Offsets count plaintext bytes from the SYN; the FIN has the offset behind the last byte."""

    peer: Endpoint
    #: The byte whose retransmission brings the byte at an offset, too.
    brought_by: Callable[[int], int]

    def __init__(self, random: Random, local: tuple[bytes, int], remote: tuple[bytes, int], isn: int, out: bytes,
                 habits: Habits, listens: bool) -> None:  # fmt: skip
        self.random, self.local, self.remote, self.isn, self.habits = random, local, remote, isn, habits
        #: All that the application is going to write, how much of it is written, and whether it then closes.
        self.out, self.written, self.closed = out, 0, False
        self.state = "listen" if listens else "closed"
        self.una = self.sent = 0
        self.fin_sent = False
        self.edge = self.largest_window = 0
        self.sacked = bytearray(len(out))
        self.peer_isn = -1
        self.peer_scale: int | None = None
        self.mss = 536
        self.sack = self.timestamps = False
        #: What came in: bytes by offset, which of them are there, and where the peer's FIN is.
        self.content, self.mask = bytearray(), bytearray()
        self.next = self.read = 0
        self.fin_at: int | None = None
        self.fin_taken = False
        self.announced = 0
        self.duplicate: tuple[int, int] | None = None
        self.latest = 0
        self.ack_due = False
        self.ts_recent, self.ts_clock = 0, random.randrange(1 << 32)
        self.last_ack_sent = 0
        self.identification = random.randrange(1, 0xFFFF)
        self.reset = self.aborted = False
        #: Short of memory: some of what arrives is not taken.
        self.pressed = False
        #: What arrives now is forged: it is judged as a kernel would, which knows nothing of the other end.
        self.attacked = False
        #: Bare segments outside the window that were answered; kernels limit them by time (tcp_oow_rate_limited).
        self.challenges = 0
        #: Packets for the network, each with its gso_size (0: a single segment).
        self.sending: list[tuple[bytes, int]] = []

    # -- what it sends

    def _now(self) -> int:
        self.ts_clock += 1
        return self.ts_clock & WORD

    def _packet(self, seq: int, flags: int, payload: bytes = b"", options: bytes | None = None, gso: int = 0) -> None:
        if options is None:
            options = self._options()
        shift = 0 if flags & SYN or self.peer_scale is None else self.habits.scale
        window = self._window(shift)
        ack = self.peer_isn + 1 + self.ack_offset() if flags & ACK else 0
        self.last_ack_sent = self.ack_offset()
        self.identification = self.identification % 0xFFFE + 1
        packet = Packet(
            self.local[0], self.remote[0], (self.local[1], self.remote[1]), seq, ack, flags, window, options, payload,
            self.identification,
        )  # fmt: skip
        self.sending.append((packet.build(), gso))
        self.ack_due = False

    def ack_offset(self) -> int:
        return self.next + self.fin_taken

    def _window(self, shift: int) -> int:
        free = max(0, self.habits.buffer - (self.next - self.read))
        wanted = max(free, self.announced - self.next)
        window = min(65535, -(-wanted >> shift) if wanted > free else wanted >> shift)
        self.announced = max(self.announced, self.next + (window << shift))
        return window

    def _options(self) -> bytes:
        options = b""
        if self.timestamps:
            options = b"\x01\x01\x08\x0a" + pack("!II", self._now(), self.ts_recent)
        if self.sack:
            blocks = self._blocks()[: 3 if self.timestamps else 4]
            if blocks:
                options += b"\x01\x01" + bytes((5, 2 + 8 * len(blocks)))
                for start, end in blocks:
                    options += pack("!II", self.peer_isn + 1 + start & WORD, self.peer_isn + 1 + end & WORD)
        return options

    def _blocks(self) -> list[tuple[int, int]]:
        """SACK blocks (RFC 2018), a D-SACK block first (RFC 2883)."""
        blocks = []
        at = self.mask.find(1, self.next)
        while at >= 0:
            end = self.mask.find(0, at)
            end = len(self.mask) if end < 0 else end
            blocks.append((at, end + (end == self.fin_at)))
            at = self.mask.find(1, end)
        blocks.sort(key=lambda block: not block[0] <= self.latest < block[1])
        if self.duplicate:
            blocks.insert(0, self.duplicate)
            self.duplicate = None
        return blocks

    def _syn_options(self, answer: bool) -> bytes:
        options = pack("!BBH", 2, 4, self.habits.mtu - (60 if len(self.local[0]) == 16 else 40))
        if self.sack if answer else self.habits.sack:
            options += b"\x01\x01\x04\x02"
        if self.timestamps if answer else self.habits.timestamps:
            options += b"\x01\x01\x08\x0a" + pack("!II", self._now(), self.ts_recent)
        if self.peer_scale is not None or not answer:
            options += bytes((1, 3, 3, self.habits.scale))
        return options

    def dial(self) -> None:
        """Send the SYN, or send it again."""
        self.state = "syn-sent"
        self._packet(self.isn, SYN, options=self._syn_options(False))

    def syn_ack(self) -> None:
        self._packet(self.isn, SYN | ACK, options=self._syn_options(True))

    def current_mss(self, options: bytes) -> int:
        own = self.habits.mtu - (60 if len(self.local[0]) == 16 else 40)
        return max(1, min(self.mss, own) - len(options))

    def limit(self) -> int:
        """How far the application has filled the stream, FIN included."""
        return self.written + (self.closed and self.written == len(self.out))

    def send_new(self, wish: int) -> bool:
        """Send up to `wish` new bytes, as far as the window reaches; whether anything went out."""
        end = min(self.written, self.sent + wish, self.edge)
        fin = self.limit() > self.written and end == self.written and not self.fin_sent
        if end <= self.sent and not fin:
            return False
        return self.segment(self.sent, max(end, self.sent), fin)

    def segment(self, start: int, end: int, fin: bool) -> bool:
        """Send [start, end), which may have been sent before, as one segment or batch, as much as fits."""
        options = self._options()
        mss = self.current_mss(options)
        gso = 0
        if end - start > mss:
            if self.habits.gso:
                # The kernel's own choice: the window or the route may make it smaller than the MSS.
                gso = mss if self.random.random() < 0.8 else self.random.randint(max(1, mss // 2), mss)
                whole = min(BATCH, end - start)
                end, fin = start + whole, fin and whole == end - start
                if whole <= gso:
                    gso = 0
            else:
                end, fin = start + mss, False
        flags = ACK | (FIN if fin else 0) | (PSH if end == self.written or self.random.random() < 0.2 else 0)
        self._packet(self.isn + 1 + start, flags, self.out[start:end], options, gso)
        self.sent = max(self.sent, end)
        self.fin_sent = self.fin_sent or fin
        return True

    def unacked(self) -> bool:
        return self.una < self.sent + self.fin_sent

    def retransmit(self) -> None:
        """Send what is the first thing missing, as after a timeout."""
        start = self.una
        while start < self.sent and self.sacked[start]:
            start += 1
        end = self.sacked.find(1, start)
        end = self.sent if end < 0 else min(end, self.sent)
        options = 12 + 36 * self.sack
        self.segment(
            start, min(end, start + max(1, self.current_mss(bytes(options)))), self.fin_sent and end == self.sent
        )

    def retransmit_any(self) -> None:
        """Send any part of what is unacknowledged, cut anew."""
        if self.fin_sent and self.random.random() < 0.2:
            self.segment(self.random.randint(min(self.una, self.sent), self.sent), self.sent, True)
            return
        if self.una >= self.sent:
            return
        start = self.una if self.random.random() < 0.5 else self.random.randrange(self.una, self.sent)
        end = self.random.randint(start + 1, min(self.sent, start + self.random.choice((1, 40, 3000, BATCH))))
        self.segment(start, end, self.fin_sent and end == self.sent and self.random.random() < 0.5)

    def pure_ack(self) -> None:
        self._packet(self.isn + 1 + self.sent + self.fin_sent, ACK)

    def probe(self) -> None:
        """A keepalive or a zero-window probe: one below what is unacknowledged (tcp_xmit_probe_skb)."""
        self._packet(self.isn + 1 + self.una - 1, ACK)

    def abort(self) -> None:
        self._packet(self.isn + 1 + self.sent + self.fin_sent, RST | ACK, options=b"")
        self.state, self.aborted = "closed", True

    # -- what it receives

    def handle(self, raw: bytes) -> None:
        packet = parse(raw)
        assert (packet.source, packet.ports[0]) == self.remote and (packet.destination, packet.ports[1]) == self.local
        if self.state == "closed":
            if self.aborted and not packet.flags & RST:
                self._packet(packet.ack, RST, options=b"")  # no such socket (RFC 9293 section 3.5.2)
            return
        if packet.flags & SYN:
            self._handle_syn(packet)
        elif self.state in ("listen", "syn-sent"):
            assert self.state != "listen", "a listening socket would answer this with a reset"
        else:
            self._handle_segment(packet)

    def _handle_syn(self, packet: Packet) -> None:
        assert not packet.payload and not packet.flags & (FIN | RST)
        options = options_of(packet.options)
        if self.state in ("listen", "syn-sent"):
            answer = self.state == "syn-sent"
            assert bool(packet.flags & ACK) == answer
            if answer:
                assert packet.ack == self.isn + 1 & WORD, "a socket in SYN-SENT would reset this"
            self.peer_isn = packet.seq
            self.peer_scale = options[3][0] if 3 in options else None
            self.sack = 4 in options and self.habits.sack
            self.timestamps = 8 in options and self.habits.timestamps
            self.mss = unpack_from("!H", options[2])[0]
            self.edge = packet.window
            if self.timestamps:
                self.ts_recent = unpack_from("!I", options[8])[0]
            if answer:
                self.state = "established"
                self.pure_ack()
            else:
                self.state = "syn-received"
                self.syn_ack()
        elif self.state == "syn-received" and not packet.flags & ACK:
            assert packet.seq == self.peer_isn
            self.syn_ack()
        else:
            self.pure_ack()  # a challenge (RFC 5961 section 4)

    def _handle_segment(self, packet: Packet) -> None:
        offset = (
            (packet.seq - self.peer_isn - 1 - self.ack_offset() + 0x80000000 & WORD) - 0x80000000 + self.ack_offset()
        )
        options = options_of(packet.options)
        fin = bool(packet.flags & FIN)
        end = offset + len(packet.payload)
        if packet.flags & RST:
            if offset == self.ack_offset():
                self.reset, self.state = True, "closed"
            elif self.ack_offset() < offset <= self.announced:
                self.pure_ack()
            return
        stamp = self.ts_recent
        if self.timestamps:
            assert 8 in options or self.attacked
            if 8 in options:
                stamp = unpack_from("!I", options[8])[0]
            if self.ts_recent and 0 < (self.ts_recent - stamp & WORD) < 0x80000000:
                self.pure_ack()  # PAWS (RFC 7323 section 5.3)
                return
        if end + fin < self.last_ack_sent or offset > max(self.announced, self.ack_offset()):
            self._check_old(offset, packet.payload)
            if packet.payload and self.sack and end <= self.next:
                self.duplicate = (offset, end) if offset >= 0 else None
            self.challenges += not packet.payload
            if packet.payload or self.challenges <= CHALLENGES:
                self.pure_ack()
            return
        assert packet.flags & ACK
        if not self._handle_ack(packet, options):
            return
        if self.timestamps and offset <= self.last_ack_sent:
            self.ts_recent = stamp
        if packet.payload or fin:
            self._handle_data(offset, packet.payload, fin)

    def _check_old(self, offset: int, payload: bytes) -> None:
        """Data that is only counted as old: what is acknowledged may be anything, the rest is what was there."""
        start = max(0, offset, self.last_ack_sent)
        if start < min(offset + len(payload), self.next):
            known = payload[start - offset : self.next - offset]
            assert known == self.content[start : start + len(known)], "old data changed"

    def _handle_ack(self, packet: Packet, options: dict[int, bytes]) -> bool:
        una = self.una
        ack = (packet.ack - self.isn - 1 - una + 0x80000000 & WORD) - 0x80000000 + una
        if self.attacked and not una - min(self.largest_window, una) <= ack <= self.sent + self.fin_sent:
            self.pure_ack()  # RFC 5961 section 5
            return False
        assert ack <= self.sent + self.fin_sent, "acknowledges what was never sent"
        if self.state == "syn-received":
            assert ack == 0, "a socket in SYN-RECEIVED would reset this"
            self.state = "established"
        assert ack <= self.peer.ack_offset(), "acknowledges what the other socket does not have"
        shift = 0 if self.peer_scale is None or self.habits.scale is None else self.peer_scale
        if ack >= una:
            self.una = ack
            self.edge = max(self.edge, ack + (packet.window << shift))
            self.largest_window = max(self.largest_window, packet.window << shift)
        blocks = options.get(5, b"")
        assert self.sack or not blocks
        for at in range(0, len(blocks), 8):
            left, right = unpack_from("!II", blocks, at)
            start = (left - self.isn - 1 - una + 0x80000000 & WORD) - 0x80000000 + una
            end = start + (right - left & WORD)
            assert 0 <= start < end <= self.sent + self.fin_sent, "selectively acknowledges what was never sent"
            assert at == 0 or start > ack, "only the first block may be a D-SACK"
            end = min(end, len(self.out))
            self.sacked[start:end] = b"\1" * (end - start)
            # What the other socket lacks may count as received if it is sure to be resent with something that does not.
            lacking = self.peer.mask.find(0, start, end)
            while lacking >= 0:
                first = self.brought_by(lacking)
                assert not self.sacked[first] and first >= ack, "SACK of what is not there"
                lacking = self.peer.mask.find(0, lacking + 1, end)
            assert len(self.peer.mask) >= end, "SACK of what is not there"
        return True

    def _handle_data(self, offset: int, payload: bytes, fin: bool) -> None:
        end = offset + len(payload)
        if payload and end <= self.ack_offset() and not (fin and not self.fin_taken):
            self._check_old(offset, payload)
            if self.sack and offset >= 0:
                self.duplicate = (offset, min(end, self.next))
                self.duplicate = self.duplicate if self.duplicate[0] < self.duplicate[1] else None
            self.pure_ack()
            return
        if payload and offset >= self.announced:
            self.pure_ack()
            return
        if end > self.announced and self.habits.trims:
            payload, end, fin = payload[: self.announced - offset], self.announced, False
        if self.pressed and end > self.next and self.random.random() < 0.1:
            # No memory for all of it: what is kept is cut anywhere.
            payload, fin = payload[: self.random.randrange(max(0, self.next - offset), len(payload) + 1)], False
            end = offset + len(payload)
            if end <= self.next:
                self.pure_ack()
                return
        start = max(0, offset)
        assert payload[start - offset :] == self.peer.out[start:end], "not what the other side wrote"
        assert end <= self.peer.sent, "data from the future"
        if len(self.mask) < end:
            self.mask.extend(bytes(end - len(self.mask)))
            self.content.extend(bytes(end - len(self.content)))
        if self.sack and self.mask[start:end].find(1) >= 0:
            first = self.mask.find(1, start)
            stop = self.mask.find(0, first)
            self.duplicate = (first, min(end, stop if stop >= 0 else end))
        self.content[start:end] = payload[start - offset :]
        self.mask[start:end] = b"\1" * (end - start)
        self.latest = start
        if fin:
            assert self.peer.fin_sent and end == len(self.peer.out), "an end that the other side did not write"
            self.fin_at = end
        in_order = offset <= self.next
        stop = self.mask.find(0, self.next)
        self.next = len(self.mask) if stop < 0 else stop
        if self.fin_at == self.next:
            self.fin_taken = True
        if in_order and self.random.random() < 0.5 and not fin and not self.duplicate:
            self.ack_due = True
        else:
            self.pure_ack()

    def consume(self, count: int) -> None:
        """The application reads; a window that was small is announced anew."""
        was = self.announced - self.next
        self.read = min(self.next, self.read + count)
        if (
            self.state == "established"
            and was < self.habits.buffer // 2
            and self.habits.buffer - (self.next - self.read) > was
        ):
            self.ack_due = True

    def finished(self) -> bool:
        """Everything was written, acknowledged and received, the FINs included."""
        return self.fin_sent and self.una == len(self.out) + 1 and self.fin_taken and self.next == len(self.peer.out)


__all__ = [
    "ACK",
    "BATCH",
    "CHALLENGES",
    "FIN",
    "PSH",
    "RST",
    "SYN",
    "URG",
    "Endpoint",
    "Habits",
    "Packet",
    "options_of",
    "parse",
    "replace",
]
