"""SYN and SYN-ACK: the handshake rides in them, and the policy is applied to them.

An attempt is what becomes a flow when its handshake is done: our socket's (`Dialling`) or a peer's (`Answering`).
Both are bounded in number and in time, and neither harms a connection that lives on the same addresses and ports.

A connection attempt is told apart by both initial sequence numbers.  The same SYN-ACK again carries the same bytes; one
with another initial sequence number (SYN cookies, a socket made anew) gets a message 2 of its own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import chain
from typing import Final

from .addresses import Path, endpoints, on_ports, peer_of, reversed_key
from .attempts import LIFETIME, Answering, Dialling, Dials
from .ephemerals import Ephemerals
from .flow import Flow
from .handshake import (
    HELLO_LENGTH,
    Answer,
    Carrier,
    Dial,
    Refused,
    Session,
    named_ephemeral,
)
from .identities import Identities
from .keyring import KeyRing, Offers, RefusedKeys
from .making import Making
from .noise import KeyPair
from .options import SynOptions, read_syn
from .packet import ACK, MASK32, RST, Segment, bare, rebuild
from .paths import Paths
from .policy import Policy, Surroundings
from .replays import ReplayCache
from .status import Connection, State
from .table import Gone, Table
from .verdict import ACCEPT, Outcome, Rejected, Verdict

#: Attempts of peers under way at once: in all, and from one address.
MAX_ANSWERING: Final = 4096
MAX_PER_ADDRESS: Final = 1024
MAX_DIALLING: Final = 4096
#: SYN-ACKs with different sequence numbers that one SYN may get.
MAX_REPLIES: Final = 4

_SIGNED: Final = "the socket uses TCP-MD5 or TCP-AO, which cannot be encrypted"
#: Reasons for which a peer counts as one without mcencrypt, so that the policy may allow plaintext.
_STRANGER: Final = frozenset({"not-a-handshake", "wrong-key", "other-version"})


def _at_once(work: Callable[[], None]) -> None:
    work()


class Admission:
    """Attempts in both directions, until they are flows."""

    def __init__(
        self,
        policy: Policy,
        ring: KeyRing,
        static: KeyPair,
        ephemerals: Ephemerals,
        surroundings: Surroundings,
        outcome: Outcome,
        table: Table,
        epoch_bits: int,
    ) -> None:
        """`epoch_bits`: log2 of the wire bytes after which a direction's key changes."""
        self.policy = policy
        self._ring, self.static, self.ephemerals, self._around = ring, static, ephemerals, surroundings
        self._outcome, self._table = outcome, table
        self.replays = ReplayCache()
        self.identities = Identities(static.public, outcome)
        #: How long packets to peers may be.
        self.paths = Paths(surroundings.route_mtu, surroundings.path_of)
        #: What peers were seen to offer, and what those offered that were refused for it.
        self.offers, self.refused_keys = Offers(), RefusedKeys()
        self.making = Making(outcome, self.paths, epoch_bits)
        #: Does what no verdict waits for. Who gives the verdicts can do it right behind one, before the next packet.
        self.behind: Callable[[Callable[[], None]], None] = _at_once
        self._per_address: Counter[bytes] = Counter()
        self.dials = Dials(MAX_DIALLING)
        #: By connection key, ours first.
        self.dialling = self.dials.by_key
        self.answering: dict[bytes, Answering] = {}
        #: Peers' SYNs that may run in plaintext where something else is known: initial sequence number, and when to
        #: forget it.
        self._plain_syns: dict[bytes, tuple[int, float]] = {}

    # -- our socket's SYN and SYN-ACK

    def syn_out(self, segment: Segment, key: bytes, now: float) -> Verdict:
        """Our socket dials: message 1 joins the SYN."""
        if not self.policy.enabled:
            self._replace_by_plaintext(key, now)
            return ACCEPT
        options = read_syn(segment.options())
        if options.signed:
            return self._outcome.reject(key, "signed-tcp", _SIGNED)
        attempt = self.dialling.get(key)
        if attempt is None or attempt.isn != segment.seq:
            # The kernel is asked while the SYN is on its way (`look_ahead`), as long as nothing depends on the answer.
            owner = self._around.owner_of(key) if self.dials.is_filling() else None
            if attempt is None and not self.dials.make_room(owner):
                return self._outcome.reject(key, "too-many-attempts", "too many connections are being opened at once")
            dial = Dial(self._ring.offered, self.static, self.ephemerals.take(), self._around.unix_ms())
            attempt = Dialling(dial, segment, options, owner, now)
            self.dials.add(key, attempt)
            self._outcome.ahead.append(key)
        return rebuild(segment, segment.seq, 0, attempt.dial.hello, options=options.passed)

    def look_ahead(self, key: bytes) -> None:
        """Find out, and compute, what will be needed of a dial when its SYN is answered; called when that has left."""
        attempt = self.dialling.get(key)
        if attempt is None:
            return
        expected = self.identities.expected_at(self.policy, key)
        if expected is not None:
            attempt.dial.expect(expected)
        if attempt.owner is None:
            self.dials.belongs(key, self._around.owner_of(key))

    def syn_ack_out(self, segment: Segment, key: bytes, live: Flow | None, now: float) -> Verdict | None:
        """Our socket answers: message 2 joins the SYN-ACK.  None if no attempt of a peer is behind it."""
        if live is not None and live.egress.isn == segment.seq and live.hello:
            hello = live.hello
        else:
            attempt = self.answering.get(key)
            if attempt is None or attempt.isn + 1 & MASK32 != segment.ack:
                return self._plain_syn_ack_out(segment, key, now)
            reply = attempt.replies.get(segment.seq)
            if reply is None:
                if len(attempt.replies) >= MAX_REPLIES:
                    return self._outcome.reject(key, "too-many-attempts", "too many answers to one SYN")
                options = read_syn(segment.options())
                if options.signed:
                    return self._outcome.reject(key, "signed-tcp", _SIGNED)
                answer = attempt.answer
                ephemeral = self.ephemerals.take(answer.remote_static)
                try:
                    message, session = answer.reply(
                        ephemeral, self._around.unix_ms(), self._ring.offered is answer.secret
                    )
                except Refused as refused:
                    return self._outcome.reject(key, refused.reason, refused.text)
                reply = attempt.replies[segment.seq] = (message, session, options.window_scale, segment.window)
            hello = reply[0]
        passed = read_syn(segment.options()).passed
        return rebuild(segment, segment.seq, segment.ack + HELLO_LENGTH, hello, options=passed)

    def _plain_syn_ack_out(self, segment: Segment, key: bytes, now: float) -> Verdict | None:
        """Our socket answers a SYN without message 1, if that was allowed to: an older attempt, or connection, is over.

        The SYN alone does not say so: anybody can send one.
        """
        plain = self._plain_syns.get(key)
        if plain is None or plain[0] + 1 & MASK32 != segment.ack:
            return None
        del self._plain_syns[key]
        if not self.policy.plaintext_allowed(peer_of(key)):
            return None
        self._replace_by_plaintext(key, now)
        return ACCEPT

    def _replace_by_plaintext(self, key: bytes, now: float) -> None:
        if key in self.answering:
            self.forget_answering(key)
        self._table.begin_in_plaintext(key, now, self.policy.leave(peer_of(key)) or "off")

    def _plain_syn_in(self, segment: Segment, key: bytes, now: float) -> Verdict:
        """A peer's SYN passes without message 1, and without any payload.  Raises Refused.

        Anybody can send one.  It is remembered only where something is known that our socket's answer would end.
        """
        self._check_fit(segment, key)
        if (key in self.answering or self._table.stage(key) is not Gone.UNKNOWN) and (
            key in self._plain_syns or len(self._plain_syns) < MAX_ANSWERING
        ):
            self._plain_syns[key] = (segment.seq, now + LIFETIME)
        return rebuild(segment, segment.seq, 0) if segment.end > segment.payload_at else ACCEPT

    # -- a peer's SYN and SYN-ACK

    def syn_in(self, segment: Segment, key: bytes, live: Flow | None, now: float) -> Verdict:
        """A peer dials: its message 1 decides whether our socket ever hears of it.

        Anybody can send SYNs, so the cheapest check comes first, and the kernel is asked nothing about one that is
        refused.
        """
        hello = bytes(segment.payload())
        attempt = self.answering.get(key)
        if attempt is None or attempt.isn != segment.seq or attempt.hello != hello:
            attempt = None
            if live is None or live.ingress.isn != segment.seq:
                try:
                    if not self.policy.enabled:
                        return self._plain_syn_in(segment, key, now)
                    attempt = self._admit(segment, key, hello, now)
                except Refused as refused:
                    return self._refuse_syn(segment, key, refused, now)
        options = read_syn(segment.options(), self.mss_limit(segment, key), segment.ipv6)
        if attempt is not None:
            attempt.mss = options.mss
        return rebuild(segment, segment.seq, 0, options=options.passed)

    def _refuse_syn(self, segment: Segment, key: bytes, refused: Refused, now: float) -> Verdict:
        if refused.key_id:
            self.refused_keys.note(peer_of(key), refused.key_id)
        dial = self.dials.which_sent(segment.payload()) if refused.reason == "own-key" else None
        if dial is not None:  # no answer will come: the local connect() fails at once instead of waiting for ever
            self._outcome.to_socket(bare(reversed_key(dial), 0, self.dialling[dial].isn + 1, RST | ACK))
            self.dials.forget(dial)
            self.identities.led_back(dial, now)
        if refused.reason in _STRANGER and self.policy.plaintext_allowed(peer_of(key)):
            try:
                verdict = self._plain_syn_in(segment, key, now)
            except Refused as unfit:
                refused = unfit
            else:
                if refused.reason != "not-a-handshake":
                    self._outcome.events.append(
                        Rejected(key, refused.reason, f"{refused.text}; the connection runs in plaintext")
                    )
                return verdict
        return self._outcome.reject(key, refused.reason, refused.text)

    def _check_fit(self, segment: Segment, key: bytes) -> SynOptions:
        """The options of a peer's SYN.  Raises Refused for one that no connection can come of."""
        if key in self.dialling:
            raise Refused("simultaneous-open", "both sides dialled at once; one of them will try again")
        options = read_syn(segment.options())
        if options.signed:
            raise Refused("signed-tcp", "the peer uses TCP-MD5 or TCP-AO, which cannot be encrypted")
        return options

    def _admit(self, segment: Segment, key: bytes, hello: bytes, now: float) -> Answering:
        """The attempt that a valid message 1 makes.  Raises Refused, and then has changed nothing."""
        secret = self._ring.named_by(hello)
        noise = secret.check_named(hello, Carrier.SYN.message_1)
        attempt_name = segment.source_first + segment.seq.to_bytes(4, "big")
        self.replays.check(named_ephemeral(hello), attempt_name)
        options = self._check_fit(segment, key)
        address, unix_ms = peer_of(key), self._around.unix_ms()
        if key not in self.answering and (
            len(self.answering) >= MAX_ANSWERING or self._per_address[address] >= MAX_PER_ADDRESS
        ):
            raise Refused("too-many-attempts", "too many of its connections are half open")
        answer = Answer(secret, self.static, hello, unix_ms, noise=noise)
        self.identities.check(self.policy, answer.remote_static)
        self.replays.admit(answer.ephemeral, attempt_name, answer.timestamp_ms, unix_ms, now)
        if key not in self.answering:
            self._per_address[address] += 1
        attempt = self.answering[key] = Answering(answer, hello, segment, options, now)
        return attempt

    def syn_ack_in(self, segment: Segment, key: bytes, live: Flow | None, now: float) -> Verdict | None:
        """A peer answers our SYN.  None if we are not dialling it."""
        attempt = self.dialling.get(key)
        if attempt is None:
            if live is not None and live.ingress.isn == segment.seq:
                return rebuild(segment, segment.seq, live.egress.isn + 1)
            return None
        acked = segment.ack - attempt.isn - 1 & MASK32
        if acked not in (0, HELLO_LENGTH):
            return rebuild(segment, segment.seq, segment.ack)  # a stray; the kernel knows what to answer
        address, hello = peer_of(key), segment.payload()
        try:
            if acked != HELLO_LENGTH:
                raise Refused("not-a-handshake", "it does not answer the handshake: is mcencrypt running there?")
            session = attempt.dial.finish(hello)
            self.identities.check_answer(self.policy, key, session.remote_static, self._around.unix_ms())
        except Refused as refused:
            if not acked and not len(hello) and self.policy.plaintext_allowed(address):
                self.dials.forget(key)
                self._replace_by_plaintext(key, now)
                return ACCEPT
            self._outcome.reject(key, refused.reason, refused.text)
            self.dials.forget(key)
            if refused.reason in ("not-listed", "own-key", "key-changed"):
                # It is a peer, so it can be told: its half-open connection ends at once.
                reset = bare(key, attempt.isn + 1 + HELLO_LENGTH, 0, RST)
                self._outcome.to_network(reset)
            # The local connect() fails at once instead of waiting for ever.
            return rebuild(segment, segment.seq, attempt.isn + 1, flags=RST | ACK)
        options = read_syn(segment.options(), self.mss_limit(segment, key), segment.ipv6)
        if not self._table.has_room(key):
            return self._outcome.reject(key, "too-many-connections", "the connection table is full")
        theirs = (segment.seq, segment.window, options.window_scale)
        self.behind(lambda: self._have_dialled(key, attempt, theirs, session, options.mss, now))
        return rebuild(segment, segment.seq, attempt.isn + 1, options=options.passed)

    def _have_dialled(
        self,
        key: bytes,
        attempt: Dialling,
        theirs: tuple[int, int, int | None],
        session: Session,
        mss: int,
        now: float,
    ) -> None:
        """The peer's SYN-ACK has a valid message 2: our attempt is a connection."""
        ours = (attempt.isn, attempt.window, attempt.scale)
        flow = self.making.flow(key, ours, theirs, session, attempt.dial.secret.key_id, mss, b"", True, now)
        self._table.add(flow)  # there is room: it was asked for
        self.dials.forget(key)
        if attempt.dial.peer_offers:
            self.offers.note(flow.identity, flow.key_id, now, flow.path.peer)

    def first_ack_in(self, segment: Segment, key: bytes, now: float) -> None:
        """A segment of a peer that may complete its attempt: it acknowledges one of our SYN-ACKs with message 2."""
        attempt = self.answering.get(key)
        if attempt is None:
            return
        isn = segment.ack - 1 - HELLO_LENGTH & MASK32
        reply = attempt.replies.get(isn)
        if reply is None or segment.flags & (RST | ACK) != ACK:
            return
        hello, session, scale, window = reply
        # The peer's first segment may be lost or late; any other in our window, or one below it, proves as much.
        if segment.seq - attempt.isn - HELLO_LENGTH & MASK32 > window + 1:
            return
        flow = self.making.flow(
            key,
            (isn, window, scale),
            (attempt.isn, attempt.window, attempt.scale),
            session,
            attempt.answer.secret.key_id,
            attempt.mss,
            hello,
            False,
            now,
        )
        if self._table.add(flow):
            self.forget_answering(key)

    def half_open_in(self, segment: Segment, key: bytes) -> int:
        """The sequence number, as our socket must see it, of a segment of a peer's that completes no attempt.

        A reset right behind the handshake message ends the attempt, for our socket and here.
        """
        seq: int = segment.seq
        if segment.flags & RST and seq == self.answering[key].isn + 1 + HELLO_LENGTH & MASK32:
            self.forget_answering(key)
            return seq - HELLO_LENGTH
        return seq

    def has_proven(self, flow: Flow, now: float) -> None:
        """The peer that dialled has proven its public key."""
        self.offers.note(flow.identity, flow.key_id, now, flow.path.peer)
        self.ephemerals.expect(flow.identity)

    def take_policy(self, policy: Policy) -> None:
        """Another policy; attempts of peers that it does not trust are given up."""
        self.policy = policy
        for key in [key for key, one in self.answering.items() if not policy.trusts(one.answer.remote_static)]:
            self.forget_answering(key)

    def mss_limit(self, segment: Segment, key: bytes) -> int:
        """What a peer's MSS counts for at most: the route's MTU less headers."""
        path = self.paths.of(key) if key in self.dialling else Path.of(key)  # a peer's SYN has no socket here as yet
        return max(self.paths.limits(path).path - (60 if segment.ipv6 else 40), 88)

    # -- what is known of attempts, and their end

    def keys(self) -> list[bytes]:
        """The connections whose handshake is under way, ours first."""
        return [*self.dialling, *self.answering]

    def connections(self, now: float) -> Iterator[Connection]:
        """A line of a status for each."""
        attempts: Iterable[tuple[bytes, Dialling | Answering]]
        attempts = chain(self.dialling.items(), self.answering.items())
        for key, attempt in attempts:
            local, remote = endpoints(key)
            yield Connection(local, remote, State.HANDSHAKE, b"", now - attempt.begun)

    def forget_attempts(self, but: Collection[int] = ()) -> None:
        """Forget those on other ports, so that none becomes a connection by a packet that was on its way."""
        for key in [key for key in self.dialling if not on_ports(key, but)]:
            self.dials.forget(key)
        for key in [key for key in self.answering if not on_ports(key, but)]:
            self.forget_answering(key)

    def expire(self, now: float) -> None:
        """Give up attempts that took too long."""
        for key in [key for key, dialling in self.dialling.items() if dialling.expires <= now]:
            self.dials.forget(key)
        for key in [key for key, answering in self.answering.items() if answering.expires <= now]:
            self.forget_answering(key)
        for key in [key for key, (_, expires) in self._plain_syns.items() if expires <= now]:
            del self._plain_syns[key]

    def forget_answering(self, key: bytes) -> None:
        """Give up a peer's attempt that is under way."""
        del self.answering[key]
        address = peer_of(key)
        self._per_address[address] -= 1
        if not self._per_address[address]:
            del self._per_address[address]
