"""Why a packet was dropped or an attempt refused: the closed vocabulary that everything is counted under.

Closed, because the words become labels of metrics, whose number must not grow with what strangers send.  The type
checker sees that no other word is used.
"""

from __future__ import annotations

from typing import Final, Literal, get_args

Reason = Literal[
    # a packet that is no plain TCP segment
    "truncated",
    "malformed",
    "fragment",
    "extension-header",
    "not-tcp",
    "not-ip",
    "bad-checksum",
    # a handshake
    "not-a-handshake",
    "other-version",
    "wrong-key",
    "malformed-handshake",
    "forged-handshake",
    "clock-skew",
    "replayed",
    "not-listed",
    "own-key",
    "key-changed",
    "simultaneous-open",
    "signed-tcp",
    # a full table
    "too-many-attempts",
    "too-many-connections",
    # a packet of no connection
    "unknown-connection",
    "stray-syn-ack",
    "ended-by-us",
    # a packet of an encrypted connection
    "tampered",
    "incomplete",
    "gap-before-us",
    "data-after-fin",
    "without-ack",
    "unauthenticated-fin",
    "stray-icmp",
    "cut-off",
    # a health check
    "health-check-data",
    # a handshake in a stream
    "no-answer",
]

REASONS: Final[tuple[Reason, ...]] = get_args(Reason)
