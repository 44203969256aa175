"""The network keys of a node on disk: the base key, which `network_key_file` holds, and those added since.

``state_dir/keyring/`` has a file ``ID.key`` for each added key, in the form of every key file; ``offered``, the id of
the key that this node offers (without it: the base key); and ``retired``, the ids of keys that it does not accept any
more, because a retired base key would come back at the next start otherwise. Each file is replaced whole, and in an
order in which every step leaves a ring that works. Only one process at a time writes here: whoever holds the lock of
the state directory.
"""

from __future__ import annotations

import re
from pathlib import Path

from mcencrypt.core.handshake import NetworkSecret
from mcencrypt.core.keyring import MAX_KEYS, KeyRing, RingError
from mcencrypt.errors import OperatorError
from mcencrypt.store.files import replace_file
from mcencrypt.store.keys import NetworkKey, read_network_key, save_network_key

_KEY_NAME = re.compile(r"([0-9a-f]{16})\.key")
_ID = re.compile(r"[0-9a-f]{16}")
_REMEMBER = 64  # retired keys
_FILE_MAX = 4096


class StoredKeyring:
    """A `KeyRing` whose changes are on disk before they count."""

    def __init__(self, state_dir: Path, base: NetworkKey) -> None:
        """Read the ring. `base` is the key in network_key_file.

        Raises OperatorError, with the file and what to do, for anything that is not as this class writes it.
        """
        self._directory = state_dir / "keyring"
        self.base = NetworkSecret(base.secret)
        self._retired = [bytes.fromhex(line) for line in self._lines("retired")]
        added = self._added()
        accepted = [secret for secret in (self.base, *added) if secret.key_id not in self._retired]
        offered = self._lines("offered")
        if len({secret.key_id for secret in accepted}) > MAX_KEYS:
            raise OperatorError(f"{self._directory}: more than {MAX_KEYS} keys: remove the files of those not in use")
        if not accepted:
            raise OperatorError(
                f"network_key_file holds key {self.base.key_id.hex()}, which was retired on this node, and there is no "
                "other: put the current key there"
            )
        try:
            self.ring = KeyRing(accepted, bytes.fromhex(offered[0]) if offered else None)
        except RingError:
            raise OperatorError(
                f"{self._directory / 'offered'}: names key {offered[0]}, which is not here: bring it back with "
                f"`mcencrypt key add`, or name one of {', '.join(secret.key_id.hex() for secret in accepted)} there"
            ) from None

    @property
    def base_retired(self) -> bool:
        """Whether the key in network_key_file is one that this node does not accept any more."""
        return self.base.key_id in self._retired

    def knows(self, key_id: bytes) -> bool:
        """Whether that key is in the ring, or is the one that network_key_file held at first."""
        return key_id in self.ring or key_id == self.base.key_id

    def add(self, key: NetworkKey) -> NetworkSecret:
        """Accept a key from now on. Raises OperatorError."""
        secret = NetworkSecret(key.secret)
        if secret.key_id in self.ring:
            return secret
        if len(self.ring) >= MAX_KEYS:
            raise OperatorError(f"there are {MAX_KEYS} keys already: retire one first (`mcencrypt key list`)")
        save_network_key(self._file(secret.key_id), key)
        if secret.key_id in self._retired:
            self._write_retired([known for known in self._retired if known != secret.key_id])
        self.ring.add(secret)
        return secret

    def offer(self, secret: NetworkSecret) -> None:
        """Offer a key of the ring from now on. Raises OperatorError."""
        replace_file(self._directory / "offered", secret.key_id.hex().encode() + b"\n")
        self.ring.offer(secret.key_id)

    def retire(self, secret: NetworkSecret) -> None:
        """Accept a key no more. Raises OperatorError, also if it is the one offered."""
        if secret.key_id == self.ring.offered.key_id:
            raise OperatorError(
                f"key {secret.key_id.hex()} is the one that this node offers: `mcencrypt key use` another first"
            )
        if not self._lines("offered"):
            # The base key is offered by default; if that is what the file will not hold much longer, say so now.
            replace_file(self._directory / "offered", self.ring.offered.key_id.hex().encode() + b"\n")
        self._write_retired([*(known for known in self._retired if known != secret.key_id), secret.key_id])
        self.ring.remove(secret.key_id)
        file = self._file(secret.key_id)
        try:
            file.unlink(missing_ok=True)
        except OSError as error:
            raise OperatorError(f"{file}: retired, but cannot be removed: {error.strerror}: remove it") from None

    def _file(self, key_id: bytes) -> Path:
        return self._directory / f"{key_id.hex()}.key"

    def _write_retired(self, retired: list[bytes]) -> None:
        base = [self.base.key_id] if self.base.key_id in retired else []
        kept = [key_id for key_id in retired if key_id not in base][-(_REMEMBER - 1) :] + base
        replace_file(self._directory / "retired", b"".join(key_id.hex().encode() + b"\n" for key_id in kept))
        self._retired = kept

    def _added(self) -> list[NetworkSecret]:
        try:
            files = sorted(self._directory.iterdir())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OperatorError(f"{self._directory}: cannot be read: {error.strerror}: run as root") from None
        secrets = []
        for file in files:
            named = _KEY_NAME.fullmatch(file.name)
            if named is None:
                if file.suffix == ".key":
                    raise OperatorError(f"{file}: not a key of mcencrypt's own: remove it, and use `mcencrypt key add`")
                continue
            if bytes.fromhex(named[1]) in self._retired:
                continue  # retired, and then stopped before it was removed
            secret = NetworkSecret(read_network_key(file).secret)
            if secret.key_id.hex() != named[1]:
                raise OperatorError(f"{file}: holds key {secret.key_id.hex()}, and not the one of its name: remove it")
            secrets.append(secret)
        return secrets

    def _lines(self, name: str) -> list[str]:
        """The key ids in a file, which may be missing."""
        file = self._directory / name
        try:
            with file.open("rb") as stream:
                text = stream.read(_FILE_MAX).decode("ascii", "replace")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise OperatorError(f"{file}: cannot be read: {error.strerror}: run as root") from None
        lines = text.split()
        if not all(_ID.fullmatch(line) for line in lines):
            raise OperatorError(f"{file}: not as mcencrypt wrote it: it holds key ids of 16 digits, one per line")
        if name == "offered" and len(lines) != 1:
            raise OperatorError(f"{file}: must hold one key id: write the one that this node is to offer")
        return lines
