"""Flows, made of handshakes that have succeeded, in SYNs or in a stream."""

from __future__ import annotations

from .egress import Egress
from .flow import Flow
from .fragments import Pool
from .handshake import HELLO_LENGTH, Carrier, Session
from .ingress import Ingress
from .paths import Paths
from .record import Keys
from .verdict import Outcome


class Making:
    """What all flows of one engine share."""

    def __init__(self, outcome: Outcome, paths: Paths, epoch_bits: int) -> None:
        """`epoch_bits`: log2 of the wire bytes after which a direction's key changes."""
        self._outcome, self._paths, self._epoch_bits = outcome, paths, epoch_bits
        self._fragments = Pool()
        #: When a handshake under each network key last succeeded (seconds, monotonic).
        self.last_used: dict[bytes, float] = {}

    def flow(
        self,
        key: bytes,
        ours: tuple[int, int, int | None],
        theirs: tuple[int, int, int | None],
        session: Session,
        key_id: bytes,
        mss: int,
        hello: bytes,
        confirmed: bool,
        now: float,
        carrier: Carrier = Carrier.SYN,
    ) -> Flow:
        """A flow from each side's initial sequence number, SYN window and scale.  `confirmed`: we dialled."""
        self.last_used[key_id] = now
        bits = self._epoch_bits
        egress = Egress(ours[0], HELLO_LENGTH, Keys(session.sending, bits))
        ingress = Ingress(theirs[0], HELLO_LENGTH, Keys(session.receiving, bits), self._fragments)
        egress.offered(theirs[1])
        ingress.offer(ours[1])
        scaled = ours[2] is not None and theirs[2] is not None
        return Flow(
            key,
            egress,
            ingress,
            hello=hello,
            identity=session.remote_static,
            key_id=key_id,
            confirmed=confirmed,
            outgoing=confirmed,
            carrier=carrier,
            mss=mss,
            scales=(ours[2] or 0, theirs[2] or 0) if scaled else (0, 0),
            now=now,
            outcome=self._outcome,
            paths=self._paths,
        )
