"""Asking a peer whether it encrypts, with a handshake of our own that no socket is behind.

A probe is a SYN with message 1 under a chosen network key.  What comes back tells most of what an operator wants to
know of a path, and a RST ends it before the far side's application hears of it.  What the answers mean:

    SYN-ACK with a valid message 2       the peer encrypts, has that key, and proves its identity
    SYN-ACK that acknowledges no         an ordinary kernel, which ignores data in a SYN: no mcencrypt, or off
      payload
    SYN-ACK that acknowledges it, but    somebody counted message 1, so message 2 was lost on the way back; or TCP
      has no message 2                   ends at something in the middle that takes data in a SYN
    RST                                  nothing listens; by what it acknowledges, a peer's mcencrypt took message 1
                                         off, or none did
    nothing                              no host, a filter - or a peer that refuses: it has not that key, our payload
                                         was stripped on the way there, the clocks differ

Where a middlebox strips data from SYNs *on the way there*, a peer under `prefer` looks like one without mcencrypt, and
one under `require` is silent: only its own log can tell ("not-a-handshake").  All but the first answer can be forged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from struct import pack
from typing import Final, Literal

from .ephemerals import Ephemerals
from .handshake import HELLO_LENGTH, Dial, NetworkSecret, Refused
from .keyring import KeyRing
from .noise import KeyPair
from .packet import ACK, MASK32, RST, SYN, Segment, bare, rebuild
from .policy import Surroundings
from .verdict import Outcome

#: Probes under way at once.
MAX_PROBES: Final = 64
#: Seconds after which a SYN that drew no answer is sent again (RFC 6298 section 2), and again after twice that.
RESEND_AFTER: Final = 1.0
_WINDOW: Final = 65535


#: What an answer means, or none.
ProbeOutcome = Literal["encrypted", "no-mcencrypt", "stripped", "not-authentic", "refused", "silent"]


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
    #: Seconds between the (last) SYN and the answer.
    round_trip: float | None = None
    #: SYNs sent.
    attempts: int = 1


class _Probe:
    """One that is under way."""

    __slots__ = ("attempts", "deadline", "dial", "done", "isn", "resend", "sent", "syn")

    def __init__(
        self, dial: Dial, isn: int, syn: bytes, deadline: float, now: float, done: Callable[[ProbeResult], None]
    ) -> None:
        self.dial, self.isn, self.syn, self.deadline, self.done = dial, isn, syn, deadline, done
        self.attempts, self.sent, self.resend = 1, now, now + RESEND_AFTER

    def end(self, outcome: ProbeOutcome, detail: str, now: float | None = None, identity: bytes = b"") -> None:
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


class Probing:
    """The probes of one engine, which shows it what comes from the network for nobody's connection."""

    def __init__(
        self, ring: KeyRing, static: KeyPair, ephemerals: Ephemerals, surroundings: Surroundings, outcome: Outcome
    ) -> None:
        self._ring, self._static, self._ephemerals = ring, static, ephemerals
        self._around, self._outcome = surroundings, outcome
        #: Those under way, by key, ours first.
        self.under_way: dict[bytes, _Probe] = {}

    def __len__(self) -> int:
        return len(self.under_way)

    def begin(
        self,
        key: bytes,
        secret: NetworkSecret,
        now: float,
        timeout: float,
        done: Callable[[ProbeResult], None],
    ) -> bool:
        """Send a probe between the addresses and ports of `key`, ours first, of which the caller keeps ours reserved.

        `done` is called once, within `timeout` seconds and the time between two calls of `tick`.  False if there are
        too many probes already.
        """
        if len(self.under_way) >= MAX_PROBES or key in self.under_way:
            return False
        isn = int.from_bytes(self._around.random(4), "big")
        offers = secret.key_id == self._ring.offered.key_id
        dial = Dial(secret, self._static, self._ephemerals.take(), self._around.unix_ms(), offers)
        syn = _syn(key, isn, dial.hello, self._around.route_mtu(self._around.path_of(key)))
        self.under_way[key] = _Probe(dial, isn, syn, now + timeout, now, done)
        self._outcome.to_network(syn)
        return True

    def next_time(self) -> float | None:
        """When `tick` has something to do (seconds, monotonic)."""
        return min((min(probe.resend, probe.deadline) for probe in self.under_way.values()), default=None)

    def tick(self, now: float) -> None:
        """Send again what drew no answer; end what took too long."""
        for key, probe in list(self.under_way.items()):
            if now >= probe.deadline:
                del self.under_way[key]
                probe.end(
                    "silent",
                    "no answer: it is down, something on the path drops SYNs with data, or it refuses our handshake "
                    "(its log says why)",
                )
            elif now >= probe.resend:
                probe.sent, probe.resend = now, now + RESEND_AFTER * 2**probe.attempts
                probe.attempts += 1
                self._outcome.to_network(probe.syn)

    def take(self, segment: Segment, key: bytes, now: float) -> bool:
        """Whether a packet from the network, with `key` ours first, answers a probe; nobody else may see it then."""
        probe = self.under_way.get(key)
        if probe is None:
            return False
        flags, acked = segment.flags, segment.ack - probe.isn - 1 & MASK32
        if not flags & ACK or acked not in (0, HELLO_LENGTH) or not flags & (SYN | RST):
            return True
        del self.under_way[key]
        if flags & RST:
            probe.end("refused", _REFUSED if acked else _REFUSED_BEHIND_MCENCRYPT, now)
            return True
        self._outcome.to_network(bare(key, segment.ack, 0, RST))
        hello = bytes(segment.payload())
        try:
            session = probe.dial.finish(hello)
        except Refused as refused:
            if hello:
                probe.end("not-authentic", f"it answers, but {refused}", now)
            elif acked:
                probe.end("stripped", _STRIPPED, now)
            else:
                probe.end("no-mcencrypt", _NO_MCENCRYPT, now)
            return True
        probe.end("encrypted", "the handshake was answered", now, session.remote_static)
        return True


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


def _syn(key: bytes, isn: int, hello: bytes, mtu: int) -> bytes:
    """A SYN like that of a local socket: MSS, SACK permitted, window scale (RFC 9293, RFC 2018, RFC 7323)."""
    blank = Segment(bare(key, isn, 0, SYN, _WINDOW))
    mss = max(mtu - (60 if blank.ipv6 else 40), 88)
    options = pack("!BBH", 2, 4, min(mss, 65535)) + b"\x01\x01\x04\x02\x01\x03\x03\x07"
    return rebuild(blank, isn, 0, hello, options=options)
