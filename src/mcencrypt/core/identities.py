"""Which public keys may be at the other end of a connection."""

from __future__ import annotations

from base64 import b64encode

from .handshake import Refused
from .policy import Policy


def check_listed(policy: Policy, identity: bytes) -> None:
    """Raises Refused for a peer that is not trusted."""
    if not policy.trusts(identity):
        key = b64encode(identity).decode()
        raise Refused(
            "not-listed",
            f"its key {key} is not listed: to trust it, compare it with `mcencrypt identity` there, then "
            f"`mcencrypt peers add NAME {key}`",
        )
