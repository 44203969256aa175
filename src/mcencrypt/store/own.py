"""This node's own keys, to be told from those of others: all are 32 bytes in base64."""

from __future__ import annotations

import contextlib
import hmac
import os
from typing import TYPE_CHECKING

from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.errors import OperatorError
from mcencrypt.store.keyring import StoredKeyring
from mcencrypt.store.keys import parse_network_key

if TYPE_CHECKING:
    from mcencrypt.store.config import Config


def whose(config: Config, text: str) -> str:
    """What of this node's a key in base64 is: "identity" for its public key, the secret in words, "" for nothing known.

    What cannot be read is not known, and raises nothing.
    """
    try:
        key = parse_network_key(text.encode(), "the key").secret
    except OperatorError:
        return ""
    if config.identity_file or os.path.exists(config.state_dir / "identity.key"):  # which loading would make
        with contextlib.suppress(OperatorError):
            identity = config.identity()
            if key == identity.public:
                return "identity"
            if hmac.compare_digest(key, identity.private.private_bytes_raw()):
                return "this node's private key"
    with contextlib.suppress(OperatorError):
        base, key_id = config.network_key(), NetworkSecret(key).key_id
        if hmac.compare_digest(base.secret, key):
            return "the network key"
        if key_id in StoredKeyring(config.state_dir, base).ring:
            return f"network key {key_id.hex()}"
    return ""
