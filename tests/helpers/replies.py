"""Answers as a daemon gives them, for tests of whoever reads them: complete, and with one field or another changed."""

from __future__ import annotations

from typing import Any

from mcencrypt.control.replies import Connection, Counters, Gate, Key, Probed, Queue, Status
from mcencrypt.core.status import State
from mcencrypt.version import VERSION

KEY_ID = "1a2b3c4d5e6f7081"
OURS, THEIRS = "B" * 43 + "=", "C" * 43 + "="
_NOTHING: Counters = {
    "bytes_out": 0, "bytes_in": 0, "records_out": 0, "records_in": 0, "retransmissions": 0, "auth_failures": 0
}  # fmt: skip


def connection(**changes: Any) -> Connection:
    """An encrypted one."""
    made: Connection = {
        "peer": "192.0.2.7:7331", "local": "192.0.2.1:40000", "state": State.ENCRYPTED.value, "identity": THEIRS,
        "name": None, "key_id": KEY_ID, "carrier": "syn", "age": 100.0, **_NOTHING,
    }  # fmt: skip
    return {**made, **changes}  # type: ignore[typeddict-item]


def key(**changes: Any) -> Key:
    """The only one."""
    made: Key = {
        "id": KEY_ID, "accepted": True, "offered": True, "base": True, "connections": 0, "peers": 0, "last_used": None
    }  # fmt: skip
    return {**made, **changes}  # type: ignore[typeddict-item]


def queue(**changes: int) -> Queue:
    """One that has lost nothing."""
    made: Queue = {
        "number": 27971, "waiting": 0, "dropped_kernel": 0, "dropped_user": 0, "enobufs": 0, "bad_verdicts": 0,
        "injections": 0, "injections_failed": 0,
    }  # fmt: skip
    return {**made, **changes}  # type: ignore[typeddict-item]


def gate(**changes: Any) -> Gate:
    """All in place."""
    made: Gate = {"rules_in_place": True, "fence": "owned", "no_fence": None, "fence_lost": 0, "trouble": None}
    return {**made, **changes}  # type: ignore[typeddict-item]


def status(**changes: Any) -> Status:
    """A healthy daemon's, with nobody connected."""
    made: Status = {
        "enabled": True, "draining": False, "mode": "require", "mode_source": "configuration", "trust": "network-key",
        "plaintext_peers": [], "ports": [7331], "uncovered": [], "peers_list": None,
        "key_id": KEY_ID, "identity": OURS, "netns": None, "pid": 4242, "version": VERSION,
        "build": "compiled", "uptime": 61.2,
        "keys": [key(id=changes.get("key_id", KEY_ID))],
        "base_key_retired": False, "connections": [], "changed_keys": [], "own_addresses": [],
        "totals": {"connections": 0, **_NOTHING}, "refused": {},
        "grew": {}, "queue": queue(), "gate": gate(), "rules_lost": 0, "rules_seen": 0.4,
    }  # fmt: skip
    return {**made, **changes}  # type: ignore[typeddict-item]


def probed(**changes: Any) -> Probed:
    """By a peer that encrypts."""
    made: Probed = {
        "outcome": "encrypted", "detail": "the handshake was answered", "identity": THEIRS, "key_id": KEY_ID,
        "offered": True, "round_trip": 0.0042, "attempts": 1, "last_refused_key_id": None,
    }  # fmt: skip
    return {**made, **changes}  # type: ignore[typeddict-item]
