"""A probe with its handshake in the SYN: what is sent, and what each answer means (see `core.probing`)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from struct import pack
from typing import Final, Literal

from .handshake import HELLO_LENGTH, Dial, Refused
from .packet import ACK, MASK32, RST, SYN, Segment, bare, rebuild
from .verdict import Outcome

#: Seconds after which a SYN that drew no answer is sent again (RFC 6298 section 2), and again after twice that.
RESEND_AFTER: Final = 1.0
#: The window that a probe offers, in bytes.
WINDOW: Final = 65535

#: What an answer means, or none.  "unanswered": TCP connects, and no message 2 comes.
ProbeOutcome = Literal["encrypted", "no-mcencrypt", "stripped", "unanswered", "not-authentic", "refused", "silent"]


@dataclass(frozen=True, slots=True)
class ProbeResult:
    """What came back."""

    outcome: ProbeOutcome
    detail: str
    key_id: bytes
    #: The peer's public key, proven; only if "encrypted".
    identity: bytes = b""
    #: Whether the peer offers this key when it dials; only if "encrypted".
    offered: bool | None = None
    #: Seconds between what was asked (last) and the answer.
    round_trip: float | None = None
    #: SYNs sent.
    attempts: int = 1


@dataclass(eq=False, repr=False)
class Probe:
    """One that is under way, with its handshake in the SYN."""

    key: bytes
    dial: Dial
    isn: int
    syn: bytes
    deadline: float
    #: When something was asked last.
    sent: float
    done: Callable[[ProbeResult], None]
    attempts: int = field(default=1, init=False)
    resend: float = field(init=False)

    def __post_init__(self) -> None:
        self.resend = self.sent + RESEND_AFTER

    def end(self, outcome: ProbeOutcome, detail: str, now: float | None = None, identity: bytes = b"") -> None:
        """It is over, and `done` is told."""
        self.done(
            ProbeResult(
                outcome,
                detail,
                self.dial.secret.key_id,
                identity,
                self.dial.peer_offers if outcome == "encrypted" else None,
                None if now is None else now - self.sent,
                self.attempts,
            )
        )

    def again(self, now: float) -> bytes:
        """What drew no answer, to be sent again."""
        self.sent, self.resend = now, now + RESEND_AFTER * 2**self.attempts
        self.attempts += 1
        return self.syn

    def give_up(self, outcome: Outcome) -> None:
        """It has taken too long."""
        self.end("silent", _SILENT)

    def take(self, segment: Segment, now: float, outcome: Outcome) -> bool:
        """A packet from the network with its addresses and ports.  Whether it is over."""
        flags, acked = segment.flags, segment.ack - self.isn - 1 & MASK32
        if not flags & ACK or acked not in (0, HELLO_LENGTH) or not flags & (SYN | RST):
            return False
        if flags & RST:
            self.end("refused", _REFUSED if acked else _REFUSED_BEHIND_MCENCRYPT, now)
            return True
        outcome.to_network(bare(self.key, segment.ack, 0, RST))
        hello = bytes(segment.payload())
        try:
            session = self.dial.finish(hello)
        except Refused as refused:
            if hello:
                self.end("not-authentic", f"it answers, but {refused}", now)
            elif acked:
                self.end("stripped", _STRIPPED, now)
            else:
                self.end("no-mcencrypt", _NO_MCENCRYPT, now)
            return True
        self.end("encrypted", "the handshake was answered", now, session.remote_static)
        return True


_SILENT = (
    "no answer: it is down, something on the path drops SYNs with data, or it refuses our handshake (its log says why)"
)
_REFUSED = "connection refused, and no mcencrypt was in the way: nothing listens there, or a firewall rejects"
_REFUSED_BEHIND_MCENCRYPT = (
    "connection refused, but something took our handshake off the SYN, as mcencrypt does: nothing listens there now"
)
_STRIPPED = (
    "it answers and acknowledges our handshake, but without its own: something on the path removes data from SYN-ACKs, "
    "or ends TCP connections (a proxy or load balancer)"
)
_NO_MCENCRYPT = (
    "it answers as a host without mcencrypt, or switched off, does; or something on the path removes data from SYNs "
    "(then its log says not-a-handshake)"
)


def syn_like_a_kernels(key: bytes, isn: int, hello: bytes, mtu: int) -> bytes:
    """A SYN like that of a local socket: MSS, SACK permitted, window scale (RFC 9293, RFC 2018, RFC 7323)."""
    blank = Segment(bare(key, isn, 0, SYN, WINDOW))
    mss = max(mtu - (60 if blank.ipv6 else 40), 88)
    options = pack("!BBH", 2, 4, min(mss, 65535)) + b"\x01\x01\x04\x02\x01\x03\x03\x07"
    return rebuild(blank, isn, 0, hello, options=options)
