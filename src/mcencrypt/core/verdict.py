"""What the engine answers: a verdict per packet, packets to inject, events to report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal


class Action(Enum):
    """Verdicts that need no packet."""

    ACCEPT = "accept"
    DROP = "drop"


ACCEPT = Action.ACCEPT
DROP = Action.DROP

#: A replacement for the packet, at most `packet.VERDICT_LIMIT` bytes long, or what to do with the packet as it is.
Verdict = bytes | Action


@dataclass(frozen=True, slots=True)
class Injection:
    """A packet to send besides the verdict, right after it.

    Toward the network it leaves like the local kernel's own; toward the socket it arrives over the loopback device.
    """

    packet: bytes
    toward: Literal["network", "socket"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something worth a log line or an act of the shell.

    `kind` is a fixed word; `local` and `remote` are packed address + 2-byte port (empty if no connection is
    meant); `detail` says more, for a person.
    """

    kind: Literal[
        "encrypted",  # a connection is up and the peer's identity proven
        "plaintext",  # a connection runs in plaintext, as the policy allows
        "closed",  # a connection is gone; detail has its totals
        "refused",  # policy or a failed handshake; detail is the reason
        "tampered",  # a record did not verify
        "destroy",  # the local socket of this connection must go
    ]
    local: bytes
    remote: bytes
    detail: str = ""
    reason: str = ""
    #: The peer's public key, once proven.
    identity: bytes = b""
