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

The other kind of probe asks for a handshake in the stream (`core.streamprobe`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from .ephemerals import Ephemerals
from .handshake import Carrier, Dial, NetworkSecret
from .keyring import KeyRing
from .noise import KeyPair
from .packet import Segment
from .policy import Surroundings
from .probe import Probe, ProbeResult, syn_like_a_kernels
from .streamprobe import StreamProbe
from .verdict import Outcome

#: Probes under way at once.
MAX_PROBES: Final = 64


class Probing:
    """The probes of one engine, which shows it what comes from the network for nobody's connection."""

    def __init__(
        self, ring: KeyRing, static: KeyPair, ephemerals: Ephemerals, surroundings: Surroundings, outcome: Outcome
    ) -> None:
        self._ring, self._static, self._ephemerals = ring, static, ephemerals
        self._around, self._outcome = surroundings, outcome
        #: Those under way, by key, ours first.
        self.under_way: dict[bytes, Probe] = {}

    def __len__(self) -> int:
        return len(self.under_way)

    def begin(
        self,
        key: bytes,
        secret: NetworkSecret,
        now: float,
        timeout: float,
        done: Callable[[ProbeResult], None],
        carrier: Carrier = Carrier.SYN,
    ) -> bool:
        """Send a probe between the addresses and ports of `key`, ours first, of which the caller keeps ours reserved.

        `done` is called once, within `timeout` seconds and the time between two calls of `tick`.  False if there are
        too many probes already.
        """
        if len(self.under_way) >= MAX_PROBES or key in self.under_way:
            return False
        isn = int.from_bytes(self._around.random(4), "big")
        offers = secret.key_id == self._ring.offered.key_id
        mtu = self._around.route_mtu(self._around.path_of(key))
        dial = Dial(secret, self._static, self._ephemerals.take(), self._around.unix_ms(), offers, carrier)
        syn = syn_like_a_kernels(key, isn, dial.hello if carrier is Carrier.SYN else b"", mtu)
        kind = Probe if carrier is Carrier.SYN else StreamProbe
        self.under_way[key] = kind(key, dial, isn, syn, now + timeout, now, done)
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
                probe.give_up(self._outcome)
            elif now >= probe.resend:
                self._outcome.to_network(probe.again(now))

    def take(self, segment: Segment, key: bytes, now: float) -> bool:
        """Whether a packet from the network, with `key` ours first, answers a probe; nobody else may see it then."""
        probe = self.under_way.get(key)
        if probe is None:
            return False
        if probe.take(segment, now, self._outcome):
            del self.under_way[key]
        return True
