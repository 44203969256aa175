"""Events of the engine as log lines, and its numbers as the `status` reply."""

from __future__ import annotations

import base64
import logging
import socket
from collections.abc import Callable
from typing import Any

from mcencrypt.core.addresses import endpoints
from mcencrypt.core.engine import Engine
from mcencrypt.core.status import COUNTERS, Connection, Counters, Totals
from mcencrypt.core.verdict import Closed, Encrypted, Ended, Event, InPlaintext, Rejected, Tampered
from mcencrypt.logs import RateLimit, fields

log = logging.getLogger("mcencrypt")

#: Lines a second that peers and strangers can cause, per kind of event, and how many at once.
LINES_PER_SECOND = 2.0
BURST = 20


def endpoint(packed: bytes) -> str:
    """`address:port` of a packed address and 2-byte port."""
    port = int.from_bytes(packed[-2:], "big")
    if len(packed) == 6:
        return f"{socket.inet_ntop(socket.AF_INET, packed[:4])}:{port}"
    return f"[{socket.inet_ntop(socket.AF_INET6, packed[:16])}]:{port}"


def identity(public: bytes) -> str | None:
    """A public key as people see it."""
    return base64.b64encode(public).decode() if public else None


class Reporter:
    """Writes events to the log, of each kind no more than a few a second."""

    def __init__(self, name_of: Callable[[bytes], str | None]) -> None:
        """`name_of` names a public key."""
        self._name_of = name_of
        self._limits: dict[tuple[type[Event], str], RateLimit] = {}

    def handle(self, event: Event, now: float) -> None:
        """`now`: seconds, monotonic."""
        kind = type(event), event.reason if isinstance(event, Rejected) else ""
        limit = self._limits.setdefault(kind, RateLimit(LINES_PER_SECOND, BURST))
        if not limit.allow(now):
            return
        local, remote = endpoints(event.key)
        details: dict[str, Any] = {"peer": endpoint(remote), "local": endpoint(local)}
        if isinstance(event, Encrypted | Closed | Tampered) and event.identity:
            details["name"] = self._name_of(event.identity)
        missed = limit.take_suppressed()
        if missed:
            details["not_shown"] = missed
        match event:
            case Encrypted():
                log.info("connection encrypted", extra=fields(**details, identity=identity(event.identity)))
            case InPlaintext():
                log.warning("connection in plaintext", extra=fields(**details))
            case Closed():
                log.info("connection closed", extra=fields(**details, **numbers(event.counters)))
            case Rejected():
                log.warning("connection refused", extra=fields(**details, reason=event.reason, detail=event.detail))
            case Tampered():
                detail = "a record did not verify; the packet was dropped"
                log.warning("packet not authentic", extra=fields(**details, detail=detail))
            case Ended():
                log.info("local socket reset", extra=fields(**details, detail=event.why))


def numbers(counters: Counters) -> dict[str, int]:
    """What a connection carried, by name."""
    return {name: getattr(counters, name) for name in COUNTERS}


def connection(shown: Connection, name_of: Callable[[bytes], str | None]) -> dict[str, Any]:
    """One connection as a status shows it; `name` is that of the peer's proven key, if it is listed."""
    return {
        "peer": endpoint(shown.remote),
        "local": endpoint(shown.local),
        "state": shown.state,
        "identity": identity(shown.identity),
        "name": name_of(shown.identity),
        "key_id": shown.key_id.hex() or None,
        "age": round(shown.age, 3),
        **numbers(shown.counters),
    }


def connections_and_totals(
    engine: Engine, now: float, name_of: Callable[[bytes], str | None] = lambda key: None
) -> dict[str, Any]:
    """The parts of a status that the engine knows; totals cover connections that are gone as well."""
    shown = list(engine.connections(now))
    gone: Totals = engine.table.gone
    alive = [one for one in shown if one.state.has_keys]
    totals = {"connections": gone.connections + len(alive)}
    for name in COUNTERS:
        totals[name] = getattr(gone.counters, name) + sum(getattr(one.counters, name) for one in alive)
    return {
        "connections": [connection(one, name_of) for one in shown],
        "totals": totals,
        "refused": dict(engine.outcome.refused),
    }
