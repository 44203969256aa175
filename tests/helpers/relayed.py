"""A connection behind a relay: what the far node has sealed arrives in the relay's pieces."""

from __future__ import annotations

from mcencrypt.core.handshake import HELLO_LENGTH
from mcencrypt.core.verdict import Verdict
from tests.helpers.packets import ACK, PSH, Packet, parse
from tests.helpers.sides import A, B, make
from tests.helpers.stripped import Path, stamped


class Relayed:
    """A connection behind a relay: what the far node has sealed, in the relay's pieces."""

    def __init__(self) -> None:
        path = Path()
        path.connected(b"x")
        self.b = path.b
        self._path, self.reached, self._acked, self._stamp = path, b"", 1, 1000
        (self._sending,) = path.a.table.by_local.values()
        (self.receiving,) = path.b.table.by_local.values()
        #: Packets that the fast way took.
        self.taken = 0
        self._open()

    def _open(self) -> None:
        """B's socket acknowledges what it has, and offers its window."""
        packet = stamped(
            make(B, A, self._path.isns[1] + 1, self._path.isns[0] + 1 + self._acked, ACK), 700, self._stamp
        )
        self._ask(packet.build(), outgoing=True)
        self._path.b.injected()

    def _ask(self, raw: bytes, outgoing: bool) -> Verdict:
        """As the queue asks."""
        engine = self.b.engine
        engine.outcome.injections.clear()
        verdict = engine.express.verdict(raw, 0, outgoing, 0.0)
        if verdict is not None:
            self.taken += not outgoing
            return verdict
        return (engine.egress if outgoing else engine.ingress)(raw, 0, 0.0)

    def sealed(self, data: bytes, size: int) -> tuple[int, bytes]:
        """Records of `size` bytes: the sequence number at which they start, and the bytes."""
        egress = self._sending.egress
        start = egress.ledger.wire_top
        sealed = bytes(egress.push(data, size, size, False))
        egress.sent = egress.right_edge = egress.ledger.wire_top
        return egress.seq(start), sealed

    def packets(self, seq: int, data: bytes, piece: int) -> list[Packet]:
        """What the relay sends of that."""
        ack = self._path.isns[1] + 1 + HELLO_LENGTH
        return [
            stamped(make(A, B, seq + at, ack, ACK | PSH, data[at : at + piece]), self._stamp)
            for at in range(0, len(data), piece)
        ]

    def take(self, raw: list[bytes]) -> int:
        """Packets of the relay that arrive at once: how many of them went to the socket, as one."""
        engine = self.b.engine
        engine.outcome.injections.clear()
        count, verdict = engine.express.joined(raw, 0.0)
        if not count:
            self._deliver(engine.ingress(raw[0], 0, 0.0))
        self._deliver(verdict)
        return count or 1

    def _deliver(self, verdict: Verdict | None) -> None:
        if isinstance(verdict, bytes):
            got = parse(verdict).payload
            plain = parse(verdict).seq - self._path.isns[0] - 1 - 1
            if not 0 <= plain <= len(self.reached):
                return
            got = got[len(self.reached) - plain :]
            self.reached += got
            for one in self.b.outcome.injections:
                if one.toward == "socket":
                    self.reached += parse(one.packet).payload
            if got:
                self._acked = 1 + len(self.reached)
                self._open()

    def arrive(self, seq: int, data: bytes, piece: int) -> None:
        """The relay sends that in pieces; the socket acknowledges what it gets."""
        for packet in self.packets(seq, data, piece):
            self._deliver(self._ask(packet.build(), outgoing=False))
