"""Which public keys may be at the other end of a connection."""

from __future__ import annotations

from base64 import b64encode
from typing import Final, NamedTuple

from .addresses import endpoints, is_link_local
from .answers import Answers
from .handshake import Refused
from .limits import make_room
from .policy import Policy
from .verdict import KeyChanged, Outcome

_OURS: Final = (
    "it has this node's own key: an address that was dialled leads back here (then nothing is wrong), or another node "
    "has a copy of this one's state_dir (give it one of its own)"
)


#: Addresses that lead back here that are remembered; the one that was dialled longest ago gives way.
MAX_OWN: Final = 16


class OwnAddress(NamedTuple):
    """An address and port that leads back here: this node's own, as others reach it."""

    #: Dials of ours that came back.
    dials: int
    #: When the last one did, in seconds, monotonic.
    last: float


class Identities:
    """What is believed of peers' keys, besides what handshakes prove."""

    __slots__ = ("_outcome", "_own", "answers", "own_addresses")

    def __init__(self, own: bytes, outcome: Outcome) -> None:
        """`own`: our public key."""
        self._own, self._outcome = own, outcome
        self.answers = Answers()
        #: By packed address + port.
        self.own_addresses: dict[bytes, OwnAddress] = {}

    def check(self, policy: Policy, identity: bytes) -> None:
        """Raises Refused for a peer that is not trusted.

        And for ourselves: what we have sent came back to us, by NAT, or reflected by somebody on the path.
        """
        if identity == self._own:
            raise Refused("own-key", _OURS)
        if not policy.trusts(identity):
            key = _text(identity)
            raise Refused(
                "not-listed",
                f"its key {key} is not listed: to trust it, compare it with `mcencrypt identity` there, then "
                f"`mcencrypt peers add NAME {key}`",
            )

    def expected_at(self, policy: Policy, key: bytes) -> bytes | None:
        """The public key that is likely to answer our dial (its key, ours first); None if nobody knows.

        A guess, from which nothing follows but what is computed ahead.
        """
        endpoint = endpoints(key)[1]
        pinned = policy.pinned_at(endpoint)
        if pinned is not None:
            return next(iter(pinned)) if len(pinned) == 1 else None
        known = self.answers.known.get(endpoint)
        return None if known is None else known.identity

    def led_back(self, dialled: bytes, now: float) -> None:
        """A dial of ours (its key, ours first) has come back: what it dialled is an address of this node."""
        endpoint = endpoints(dialled)[1]
        before = self.own_addresses.pop(endpoint, OwnAddress(0, now))
        make_room(self.own_addresses, MAX_OWN)
        self.own_addresses[endpoint] = OwnAddress(before.dials + 1, now)

    def check_answer(self, policy: Policy, key: bytes, identity: bytes, unix_ms: int) -> None:
        """A peer has answered our dial (its key, ours first) and proven this key.

        Raises Refused if it is not the one that must answer there; reports one that only is another than before.
        """
        self.check(policy, identity)
        endpoint = endpoints(key)[1]
        pinned = policy.pinned_at(endpoint)
        if pinned is not None:
            if identity not in pinned:
                raise Refused(
                    "key-changed",
                    f"its key {_text(identity)} is not the one that the peers file has for this address",
                )
            return
        if is_link_local(endpoint[:-2]):
            return  # each link has another host there
        before = self.answers.expected(endpoint, identity)
        news = self.answers.note(endpoint, identity, unix_ms // 1000)
        if before is None:
            return
        if policy.pin:
            raise Refused(
                "key-changed",
                f"its key {_text(identity)} is another than {_text(before)}, which answered there before: compare it "
                "with `mcencrypt identity` there, then `mcencrypt peers forget ADDRESS`",
            )
        if news:
            self._outcome.events.append(KeyChanged(key, before, identity))


def _text(identity: bytes) -> str:
    return b64encode(identity).decode()
