"""Events of the engine as log lines."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

from mcencrypt.core.addresses import endpoints
from mcencrypt.core.limits import RateLimit, make_room
from mcencrypt.core.reasons import Reason
from mcencrypt.core.verdict import (
    FROM_BEFORE,
    Closed,
    Encrypted,
    Ended,
    Event,
    InPlaintext,
    KeyChanged,
    Rejected,
    Tampered,
)
from mcencrypt.daemon.names import endpoint, identity
from mcencrypt.logs import fields

log = logging.getLogger("mcencrypt")

#: Lines a second that peers and strangers can cause, per kind of event, and how many at once.
LINES_PER_SECOND = 2.0
BURST = 20
#: Refused connections that are remembered, and for how many seconds one that ends was refused a moment ago.
REMEMBERED = 1024
LATELY = 120.0
#: The same for refusals of one reason and one address: nodes dial what they know time and again. One line about an own
#: address, which multichaind dials each second, says all that there is.
LINES_OF_PEER = 1 / 600
BURST_OF_PEER = 3


class Reporter:
    """Writes events to the log, of each kind no more than a few a second."""

    def __init__(self, name_of: Callable[[bytes], str | None]) -> None:
        """`name_of` names a public key."""
        self._name_of = name_of
        self._limits: dict[tuple[type[Event], str], RateLimit] = {}
        #: By reason and peer's address, the latest last.
        self._of_peer: dict[tuple[str, bytes], RateLimit] = {}
        #: When connections were last refused, the latest last.
        self._refused: dict[bytes, float] = {}

    def leave_out(self, reason: Reason, number: int) -> None:
        """That many attempts were rejected that the next line about this reason is to count."""
        self._limit(Rejected, reason).suppress(number)

    def _limit(self, kind: type[Event], reason: str) -> RateLimit:
        limit = self._limits.get((kind, reason))
        if limit is None:
            limit = RateLimit(LINES_OF_PEER, 1) if reason == "own-key" else RateLimit(LINES_PER_SECOND, BURST)
            self._limits[kind, reason] = limit
        return limit

    def _limit_of_peer(self, reason: str, peer: bytes) -> RateLimit:
        limit = self._of_peer.pop((reason, peer), None) or RateLimit(LINES_OF_PEER, BURST_OF_PEER)
        make_room(self._of_peer, REMEMBERED)
        self._of_peer[reason, peer] = limit
        return limit

    def handle(self, event: Event, now: float) -> None:
        """`now`: seconds, monotonic."""
        if isinstance(event, Rejected):
            self._refused.pop(event.key, None)
            make_room(self._refused, REMEMBERED)
            self._refused[event.key] = now
        limit = self._limit(type(event), event.reason if isinstance(event, Rejected) else "")
        local, remote = endpoints(event.key)
        of_peer = self._limit_of_peer(event.reason, remote[:-2]) if isinstance(event, Rejected) else None
        if of_peer is not None and not of_peer.allow(now):
            return
        if not limit.allow(now):
            return
        details: dict[str, Any] = {"peer": endpoint(remote), "local": endpoint(local)}
        if isinstance(event, Encrypted | KeyChanged | Closed | Tampered) and event.identity:
            details["name"] = self._name_of(event.identity)
        missed = limit.take_suppressed() + (of_peer.take_suppressed() if of_peer is not None else 0)
        if missed:
            details["not_shown"] = missed
        match event:
            case Encrypted():
                if event.streamed:
                    details["carrier"] = "stream"
                log.info("connection encrypted", extra=fields(**details, identity=identity(event.identity)))
            case KeyChanged():
                log.warning(
                    "another key answers at this address",
                    extra=fields(
                        **details,
                        identity=identity(event.identity),
                        before=identity(event.before),
                        detail="compare it with `mcencrypt identity` there, then `mcencrypt peers forget ADDRESS`",
                    ),
                )
            case InPlaintext():
                log.warning("connection in plaintext", extra=fields(**details))
            case Closed():
                log.info("connection closed", extra=fields(**details, **asdict(event.counters)))
            case Rejected():
                log.warning("connection refused", extra=fields(**details, reason=event.reason, detail=event.detail))
            case Tampered():
                detail = "a record did not verify; the packet was dropped"
                log.warning("packet not authentic", extra=fields(**details, detail=detail))
            case Ended():
                # what still comes of a dial that was refused is from no time before
                refused = now - self._refused.get(event.key, -LATELY) < LATELY
                why = "its handshake was refused" if refused and event.why == FROM_BEFORE else event.why
                log.info("local socket reset", extra=fields(**details, detail=why))
