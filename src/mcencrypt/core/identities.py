"""Which public keys may be at the other end of a connection."""

from __future__ import annotations

from base64 import b64encode
from typing import Final

from .handshake import Refused
from .policy import Policy

_OURS: Final = (
    "it has this node's own key: an address that was dialled leads back here (then nothing is wrong), or another node "
    "has a copy of this one's state_dir (give it one of its own)"
)


class Identities:
    """What is believed of peers' keys, besides what handshakes prove."""

    __slots__ = ("_own",)

    def __init__(self, own: bytes) -> None:
        """`own`: our public key."""
        self._own = own

    def check(self, policy: Policy, identity: bytes) -> None:
        """Raises Refused for a peer that is not trusted.

        And for ourselves: what we have sent came back to us, by NAT, or reflected by somebody on the path.
        """
        if identity == self._own:
            raise Refused("own-key", _OURS)
        if not policy.trusts(identity):
            key = b64encode(identity).decode()
            raise Refused(
                "not-listed",
                f"its key {key} is not listed: to trust it, compare it with `mcencrypt identity` there, then "
                f"`mcencrypt peers add NAME {key}`",
            )
