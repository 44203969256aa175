"""What the daemon tells its exporter: numbers, the same many whatever goes on.

No address, port or name of a peer is in it: metrics may be read by more people than the control socket. It crosses the
channel between the two as JSON.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypedDict

if TYPE_CHECKING:
    from mcencrypt.control.replies import Counters, Gate, Queue
    from mcencrypt.core.policy import Leave, Mode
    from mcencrypt.core.reasons import Reason
    from mcencrypt.core.status import State
    from mcencrypt.interpreted import Build


class Process(TypedDict):
    """The daemon's process."""

    #: Seconds of CPU time that it used.
    cpu: float
    #: Bytes of memory, virtual and resident.
    virtual: int
    resident: int
    #: File descriptors, and how many it may have.
    open_fds: int
    max_fds: int


class Snapshot(TypedDict):
    """One daemon at one moment."""

    #: Of mcencrypt.
    version: str
    #: "compiled" or "interpreted".
    build: Build
    #: When the daemon started, in seconds since 1970.
    started: float
    #: This node's public key, in base64.
    identity: str
    #: Id of the network key that this node offers, in hexadecimal.
    key_id: str
    enabled: bool
    draining: bool
    mode: Mode
    #: Connections there are now.
    states: dict[State, int]
    #: Encrypted ones among them whose handshake was in the stream.
    streamed: int
    #: Different proven identities among them.
    peers: int
    #: Connections that ever were encrypted, and what they carried.
    encrypted: int
    carried: Counters
    #: Connections that ever ran in plaintext, by what allowed it, those that do now, and what they carried.
    plaintext: dict[Leave, int]
    plaintext_now: dict[Leave, int]
    plaintext_carried: Counters
    #: Health checks that there were.
    health_checks: int
    #: Addresses at which another key answered than the one that is remembered.
    changed_keys: int
    #: Packets dropped and connections refused, by reason.
    refused: dict[Reason, int]
    queue: Queue
    gate: Gate
    #: Times that somebody else removed our rules.
    rules_lost: int
    #: When the signed list of peers expires, in seconds since 1970; 0 where there is none.
    peers_list_expires: int
    #: Sockets of MultiChain's on ports that no rule covers, those beyond doubt.
    uncovered: int
    process: Process
