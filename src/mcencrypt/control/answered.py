"""What the daemon says of which key answered where, and that it is there: parts of `replies`."""

from __future__ import annotations

from typing import TypedDict


class Answered(TypedDict):
    """Which key answered at an address that this node has dialled."""

    #: ADDRESS:PORT or [ADDRESS]:PORT.
    address: str
    #: The first one that answered there, in base64.
    key: str
    #: What the peers file calls that key.
    name: str | None
    #: When it answered first, in UTC.
    since: str
    #: When it answered last, in UTC, to the day.
    last: str
    #: Another key that answered there later, the last one of several; null if none did.
    other_key: str | None
    #: What the peers file calls that one.
    other_name: str | None
    #: When that one answered first, in UTC.
    other_at: str | None
    #: Whether a dial is refused where another key answers: by `pin`, or by an address in the peers file.
    pinned: bool


class PeersForgotten(TypedDict):
    """`peers-forget`: the next key that answers there is believed."""

    #: Each ADDRESS:PORT or [ADDRESS]:PORT.
    forgotten: list[str]


class Ping(TypedDict):
    """`ping`: a daemon is there."""

    #: Process id of the daemon.
    pid: int


class OwnAddress(TypedDict):
    """An address that leads back to this node: what it dialled there came back, and was refused."""

    #: As it was dialled, ADDRESS:PORT or [ADDRESS]:PORT.
    address: str
    #: How often, since the daemon's start.
    dials: int
    #: Seconds since the last time.
    last: float
