"""Two endpoints, an engine beside each, and a wire between them that does whatever a network can do.

A `Witness` of each side watches the wire, as strict about sequence numbers as a router's connection tracking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from random import Random
from struct import pack

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from mcencrypt.core import egress, flow
from mcencrypt.core.engine import CSUM_NOT_READY, CSUM_NOT_VERIFIED, GSO, Engine
from mcencrypt.core.handshake import HELLO_LENGTH, NetworkSecret
from mcencrypt.core.keyring import KeyRing
from mcencrypt.core.policy import Policy, Surroundings
from mcencrypt.core.verdict import ACCEPT, DROP, Ended, Event, InPlaintext, Tampered, Verdict
from tests.helpers.habits import Habits
from tests.helpers.model import CHALLENGES, Endpoint
from tests.helpers.network import Network, corrupt, merge
from tests.helpers.packets import ACK, FIN, PSH, RST, SYN, WORD, Packet, options_of, parse
from tests.helpers.witness import Witness

MARKER = b"plaintext!"


def text(length: int, salt: int) -> bytes:
    """Bytes that say where they belong."""
    return b"".join(MARKER + pack("!IH", at, salt) for at in range(0, length, 16))[:length]


def set_calm(after: int) -> None:
    """From how many bytes without a retransmission on records become larger."""
    for module in (egress, flow):
        vars(module)["CALM_AFTER"] = after


class World:
    """A connection from side 0 to side 1."""

    def __init__(self, seed: int, network: Network, habits: tuple[Habits, Habits], lengths: tuple[int, int],
                 isns: tuple[int, int], ipv6: bool = False, epoch_bits: int = 32,
                 calm_after: int = 4 << 20, streamed: bool = False) -> None:  # fmt: skip
        self._made_from = (seed, network, habits, lengths, isns, ipv6, epoch_bits, calm_after, streamed)
        #: Whether the engines take the path for one that ends TCP on its way, and acknowledge pieces themselves.
        self.streamed = streamed
        # Sooner than in earnest, so that short streams have records of several segments.
        set_calm(calm_after)
        self.random = Random(seed)
        self.network = network
        width = 16 if ipv6 else 4
        addresses = [(bytes(width - 1) + b"\x0a", 40000), (bytes(width - 1) + b"\x0b", 8571)]
        if not ipv6:
            addresses = [(b"\x0a\0\0\x0a", 40000), (b"\x0a\0\0\x0b", 8571)]
        self.ends = [
            Endpoint(Random(self.random.random()), addresses[side], addresses[1 - side], isns[side],
                     text(lengths[side], side), habits[side], listens=side == 1)
            for side in (0, 1)
        ]  # fmt: skip
        self.ends[0].peer, self.ends[1].peer = self.ends[1], self.ends[0]
        entropy = Random(self.random.random())
        self.clock = 1000.0
        around = Surroundings(
            entropy.randbytes, lambda: 1_700_000_000_000 + int(self.clock * 1000), lambda path: network.mtu
        )
        key = entropy.randbytes(32)
        self.engines = [
            Engine(
                Policy(),
                KeyRing([NetworkSecret(key)]),
                X25519PrivateKey.from_private_bytes(entropy.randbytes(32)),
                around,
                epoch_bits=epoch_bits,
            )
            for _ in (0, 1)
        ]
        for side in (0, 1):
            self.ends[side].brought_by = partial(self._brought_by, side)
        self.witnesses = [Witness(), Witness()]
        #: Packets under way from side 0 and from side 1.
        self.flight: list[list[bytes]] = [[], []]
        self.delivered = 0
        self.forged = False
        self.events: list[Event] = []
        #: Whether engines are asked by the fast way first, and how many packets it took.
        self.fast, self.taken = True, 0
        #: Told of each verdict: the side, whether the packet was outgoing, and the verdict.
        self.observe: Callable[[int, bool, Verdict], None] | None = None

    def __repr__(self) -> str:
        return f"World{self._made_from!r}"

    def _brought_by(self, side: int, plain: int) -> int:
        """The first byte of the record that holds `plain`: whoever resends it brings the whole record."""
        (connection,) = self.engines[side].table.by_local.values()
        ledger = connection.egress.ledger
        run = ledger.runs[ledger.at_plain(plain)]
        return run.plain + (plain - run.plain) // run.size * run.size

    # -- from the socket to the wire

    def transmit(self, side: int) -> None:
        """Hand everything that an endpoint wants to send to its engine, and what comes out to the wire."""
        end = self.ends[side]
        while end.sending:
            packet, gso = end.sending.pop(0)
            info = CSUM_NOT_READY | (GSO if gso else 0)
            given = memoryview(bytearray(packet))
            verdict = self._ask(side, given, info, outgoing=True)
            assert given == packet or not gso
            self._leave(side, packet, verdict, gso)
            self._drain(side)

    def _ask(self, side: int, packet: memoryview | bytes, info: int, outgoing: bool) -> Verdict:
        """The verdict for a packet at an engine, by the fast way if that is open and takes it."""
        engine = self.engines[side]
        verdict: Verdict | None = None
        if self.streamed:
            for flow in engine.table.by_local.values():
                flow.streamed = True
        if self.fast:
            verdict = engine.express.verdict(bytes(packet), info, outgoing, self.clock)
            self.taken += verdict is not None
        if verdict is None:
            verdict = (engine.egress if outgoing else engine.ingress)(packet, info, self.clock)
        if self.observe is not None:
            self.observe(side, outgoing, verdict)
        return verdict

    def _leave(self, side: int, packet: bytes, verdict: Verdict, gso: int) -> None:
        assert verdict is not ACCEPT, "a packet was let through untouched"
        if verdict is DROP:
            return
        assert isinstance(verdict, bytes) and 0 < len(verdict) <= 65531
        if not gso:
            self._put(side, verdict)
            return
        whole = parse(verdict)
        assert len(whole.payload) > gso, "tcp_gso_segment would refuse this"
        for at in range(0, len(whole.payload), gso):
            last = at + gso >= len(whole.payload)
            self._put(side, replace(
                whole, seq=whole.seq + at, payload=whole.payload[at : at + gso],
                flags=whole.flags if last else whole.flags & ~(FIN | PSH),
                identification=whole.identification + at // gso,
            ).build())  # fmt: skip

    def _drain(self, side: int) -> None:
        engine = self.engines[side]
        self.events += engine.outcome.events
        engine.outcome.events.clear()
        out, engine.outcome.injections = engine.outcome.injections, []
        for injection in out:
            if injection.toward == "network":
                self._put(side, injection.packet)
            else:
                self._give(side, injection.packet)

    def _put(self, side: int, raw: bytes) -> None:
        assert len(raw) <= self.network.mtu, "larger than the path"
        packet = parse(raw)
        self._watch(side, packet)
        self.flight[side].append(raw)

    def _watch(self, side: int, packet: Packet) -> None:
        """nf_conntrack's tcp_in_window with nf_conntrack_tcp_be_liberal off, and the ledger of wire bytes."""
        mine, other = self.witnesses[side], self.witnesses[1 - side]
        assert MARKER[:6] not in packet.payload and MARKER[-6:] not in packet.payload
        if packet.flags & SYN:
            mine.isn = packet.seq if mine.isn < 0 else mine.isn
            assert mine.isn == packet.seq
            options = options_of(packet.options)
            mine.scale = options[3][0] if 3 in options else None
            offset = 0
        else:
            assert mine.isn >= 0
            near = mine.end
            offset = (packet.seq - mine.isn - 1 - near + 0x80000000 & WORD) - 0x80000000 + near
        end = offset + len(packet.payload)
        if packet.flags & RST:
            return
        if packet.payload:
            mine.remember(offset, packet.payload)
        if packet.flags & ACK:
            near = other.end
            ack = (packet.ack - other.isn - 1 - near + 0x80000000 & WORD) - 0x80000000 + near
            # Numbers of a half-open flow pass as they are.
            assert ack <= other.end, "acknowledges what was never on the wire"
            scaled = not packet.flags & SYN and mine.scale is not None and other.scale is not None
            window = packet.window << (mine.scale or 0 if scaled else 0)
            mine.acked = max(mine.acked, ack)
            mine.edge = max(mine.edge, ack + window)
            mine.largest_window = max(mine.largest_window, window)
        else:
            mine.edge = max(mine.edge, HELLO_LENGTH + packet.window)
            mine.largest_window = max(mine.largest_window, packet.window)
        if not packet.flags & SYN:
            # A window changed on the way makes the other side send more than it may.
            assert self.forged or offset <= max(other.edge, HELLO_LENGTH), "starts behind the right edge of the window"
            assert self.forged or end >= mine.end - other.largest_window - 1, "too old for a router that tracks windows"
            other.largest_window += max(0, end + bool(packet.flags & FIN) - max(other.edge, HELLO_LENGTH))
        fin = bool(packet.flags & FIN)
        if fin:
            assert mine.fin_at in (None, end), "the FIN moved"
            mine.fin_at = end
        assert mine.fin_at is None or end <= mine.fin_at + (not packet.payload), "data behind the FIN"
        mine.end = max(mine.end, end + fin)

    # -- on the wire

    def deliver(self, side: int, wild: bool) -> None:
        """Let one packet (or several, merged) from `side` arrive."""
        flight, network, random = self.flight[side], self.network, self.random
        if not flight:
            return
        index = random.randrange(len(flight)) if wild and random.random() < network.reordering else 0
        raw = flight.pop(index)
        if wild:
            if random.random() < network.loss:
                return
            if random.random() < network.duplication:
                flight.insert(random.randint(0, len(flight)), raw)
            packet = parse(raw)
            if random.random() < network.splitting and len(packet.payload) > 1 and not packet.flags & SYN:
                at = random.randrange(1, len(packet.payload))
                flight.insert(index, replace(packet, seq=packet.seq + at, payload=packet.payload[at:]).build())
                raw = replace(packet, payload=packet.payload[:at], flags=packet.flags & ~(FIN | PSH)).build()
            elif random.random() < network.joining and index < len(flight):
                joined = merge(packet, parse(flight[index]), exact=False)
                if joined is not None and len(joined.build()) <= network.mtu:
                    del flight[index]
                    raw = joined.build()
            if random.random() < network.corruption:
                damaged = corrupt(raw, random)
                if damaged != raw:
                    self.forged = True
                    self._arrive(1 - side, damaged)
                    return
        if random.random() < network.merging:
            while index < len(flight):
                joined = merge(parse(raw), parse(flight[index]), exact=True)
                if joined is None:
                    break
                del flight[index]
                raw = joined.build()
        self._arrive(1 - side, raw)

    def _arrive(self, side: int, raw: bytes) -> None:
        self.delivered += 1
        info = CSUM_NOT_VERIFIED if self.random.random() < 0.5 else 0
        given = memoryview(bytearray(raw)) if info else raw
        verdict = self._ask(side, given, info, outgoing=False)
        assert verdict is not ACCEPT, "a packet was let through untouched"
        if isinstance(verdict, bytes):
            assert 0 < len(verdict) <= 65531
            self._give(side, verdict)
        self._drain(side)
        self.transmit(side)

    def _give(self, side: int, raw: bytes) -> None:
        if (raw[0] >> 4 == 4 and raw[9] == 1) or (raw[0] >> 4 == 6 and raw[6] == 58):
            raise AssertionError("no packet here is too big for the path")
        self.ends[side].handle(raw)

    def inject(self, side: int, raw: bytes) -> None:
        """A packet that nobody but an attacker has sent arrives at a side."""
        self.forged = True
        self.ends[side].attacked = True
        self._arrive(side, raw)
        self.ends[side].attacked = False

    # -- time

    def act(self, wild: bool) -> None:
        """One of the endpoints does something."""
        random = self.random
        side = random.randrange(2)
        end = self.ends[side]
        self.clock += 0.001
        if end.state in ("closed", "listen") or end.state == "syn-sent":
            if side == 0 and not end.reset:
                end.dial()
        elif end.state == "syn-received":
            end.syn_ack()
        else:
            what = random.random()
            if what < 0.2:
                end.written = min(len(end.out), end.written + random.choice((1, 32, 300, 5000, 100000)))
                end.closed = end.closed or (end.written == len(end.out) and random.random() < 0.3)
            elif what < 0.6:
                end.send_new(random.choice((1, 32, 139, 1460, 20000, 100000)))
            elif what < 0.7:
                end.retransmit_any()
            elif what < 0.75:
                end.retransmit()
            elif what < 0.85:
                end.consume(random.choice((10, 1000, 100000)))
            elif what < 0.9:
                end.probe()
            elif what < 0.95 or end.ack_due:
                end.pure_ack()
        self.transmit(side)

    def run(self, steps: int) -> None:
        """A wild time of `steps` steps."""
        for end in self.ends:
            end.pressed = end.habits.trims
        for _ in range(steps):
            if self.random.random() < 0.4:
                for end in self.ends:
                    end.challenges = 0
                self.act(True)
            else:
                self.deliver(self.random.randrange(2), True)

    def settle(self, limit: int = 1500) -> None:
        """The wire becomes perfect; the endpoints go on until all is done."""
        for end in self.ends:
            end.pressed = False
        for turn in range(limit):
            self.clock += 0.2
            for end in self.ends:
                # At first old segments arrive, by the hundred perhaps.
                assert turn < 2 or self.forged or end.challenges <= CHALLENGES, "each answers the other for ever"
                end.challenges = 0
            for side in (0, 1):
                end = self.ends[side]
                if side == 0 and end.state in ("closed", "syn-sent"):
                    end.dial()
                elif end.state == "syn-received":
                    end.syn_ack()
                elif end.state == "established":
                    end.written, end.closed = len(end.out), True
                    end.consume(len(end.peer.out))
                    if not end.send_new(100000):
                        if end.unacked():
                            end.retransmit()
                        elif end.limit() > end.una:
                            end.probe()
                    if end.ack_due:
                        end.pure_ack()
                self.transmit(side)
                self._flush()
            if all(end.finished() for end in self.ends):
                return
        raise AssertionError(
            f"stuck: {[(e.state, e.una, e.sent, e.edge, len(e.out), e.next, e.fin_taken) for e in self.ends]}"
            f" {[dict(e.outcome.refused) for e in self.engines]}"
        )

    def settle_handshake(self) -> None:
        """The wire becomes perfect until both ends are connected and nothing is under way."""
        for end in self.ends:
            end.pressed = False
        self.calm()
        for _ in range(3):
            for side, end in enumerate(self.ends):
                if side == 0 and end.state in ("closed", "syn-sent"):
                    end.dial()
                elif end.state == "syn-received":
                    end.syn_ack()
                elif end.state == "established":
                    if end.unacked():
                        end.retransmit()
                    else:
                        end.pure_ack()
                self.transmit(side)
            self.calm()
        assert [end.state for end in self.ends] == ["established", "established"]

    def calm(self) -> None:
        """Everything that is under way arrives."""
        self._flush()

    def _flush(self) -> None:
        for _ in range(20000):
            if not any(self.flight):
                return
            for side in (0, 1):
                self.deliver(side, False)
        raise AssertionError("the two sides answer each other for ever")

    def check(self) -> None:
        """Both applications have read what the other wrote; the wire carried handshakes and records."""
        for side in (0, 1):
            end = self.ends[side]
            assert bytes(end.content) == end.peer.out and all(end.mask)
            records = self.witnesses[side].records()
            assert [final for _, _, final in records] == [False] * (len(records) - 1) + [True]
            assert sum(length for _, length, _ in records) == len(end.out)
            assert self.witnesses[side].fin_at == len(self.witnesses[side].bytes)
            assert not any(isinstance(event, Ended | InPlaintext) for event in self.events)
            if not self.forged:
                assert not any(isinstance(event, Tampered) for event in self.events)
                assert not self.engines[side].outcome.refused["tampered"]
