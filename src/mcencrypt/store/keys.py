"""Secrets in files: the network key and this node's identity.

Keys are never shown by repr().
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import os
import secrets
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mcencrypt.errors import OperatorError
from mcencrypt.store.files import cannot, create_file, replace_file
from mcencrypt.store.texts import decode

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

KEY_SIZE = 32

_FILE_MAX = 1024
_SECRET_DIRECTORY = Path("/run/secrets")


@dataclass(frozen=True)
class NetworkKey:
    """The 32 bytes that all nodes of one network share."""

    secret: bytes = field(repr=False)

    def text(self) -> str:
        """As a key file holds it."""
        return _encode(self.secret).decode()


@dataclass(frozen=True)
class Identity:
    """This node's static X25519 key (Noise's ``s``)."""

    private: X25519PrivateKey = field(repr=False)

    @property
    def public(self) -> bytes:
        return self.private.public_key().public_bytes_raw()

    @property
    def public_base64(self) -> str:
        return base64.b64encode(self.public).decode()


def create_network_key(file: Path, given: NetworkKey | None = None) -> NetworkKey:
    """Make a new network key, or take the given one, and keep it in a new file.

    The file is 0600, and its directory is made 0700 if missing.

    Raises OperatorError, also if the file exists: a key is never overwritten.
    """
    key = given.secret if given is not None else secrets.token_bytes(KEY_SIZE)
    try:
        created = create_file(file, _encode(key))
    except OSError as error:
        raise cannot(file, "be written", error) from None
    if not created:
        raise OperatorError(f"{file}: exists already and is left as it is: remove it first, or name another file")
    return NetworkKey(key)


def load_network_key(file: Path) -> NetworkKey:
    """Read the network key. Raises OperatorError if it is missing, readable by others, or not a key."""
    try:
        return NetworkKey(_load(file))
    except FileNotFoundError:
        raise OperatorError(
            f"{file}: not found: make one with `mcencrypt keygen {file}` and copy it to every node"
        ) from None
    except OSError as error:
        raise cannot(file, "be read", error) from None


def read_network_key(file: Path) -> NetworkKey:
    """`load_network_key` for a file of mcencrypt's own: no advice if it is missing. Raises OperatorError."""
    try:
        return NetworkKey(_load(file))
    except OSError as error:
        raise cannot(file, "be read", error) from None


def parse_network_key(text: bytes, source: str) -> NetworkKey:
    """The key in the text of a key file that came some other way, from `source`. Raises OperatorError."""
    return NetworkKey(_decode(text, source))


def save_network_key(file: Path, key: NetworkKey) -> None:
    """Write a key file (0600), in the place of what is there. Raises OperatorError."""
    replace_file(file, _encode(key.secret))


def load_identity(state_dir: Path) -> Identity:
    """This node's identity from ``identity.key`` in `state_dir`, made if there is none yet. Raises OperatorError."""
    file = state_dir / "identity.key"
    try:
        with contextlib.suppress(FileNotFoundError):
            return _identity(file)
        create_file(file, _encode(fresh_key().private_bytes_raw()))
        return _identity(file)
    except OSError as error:
        raise cannot(file, "be read or made", error) from None


def fresh_key() -> X25519PrivateKey:
    """A new private key of this curve."""
    # Imported where it is needed: a third of the time that most commands take to start.
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return X25519PrivateKey.generate()


def read_identity(file: Path) -> Identity:
    """A node's identity from a file that somebody else put there, such as a Secret. Raises OperatorError.

    It is not made if it is missing: a node that changes its key without anybody noticing is nobody's peer.
    """
    try:
        return _identity(file)
    except FileNotFoundError:
        raise OperatorError(
            f"{file}: not found: make one for this node alone with `mcencrypt keygen {file}`, or leave identity_file "
            "out"
        ) from None
    except OSError as error:
        raise cannot(file, "be read", error) from None


def _identity(file: Path) -> Identity:
    from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

    return Identity(X25519PrivateKey.from_private_bytes(_load(file)))


def _encode(key: bytes) -> bytes:
    return base64.b64encode(key) + b"\n"


def _load(file: Path, environ: Mapping[str, str] = os.environ) -> bytes:
    try:
        # O_NONBLOCK: a FIFO must not hang us.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except PermissionError:
        raise _not_ours(file) from None
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise OperatorError(
                f"{file}: is a folder, as Docker makes in the place of a file that is not there: remove it, put the "
                "key file there, and make the container anew"
            )
        if not stat.S_ISREG(status.st_mode):
            raise OperatorError(f"{file}: not a regular file: name the file that holds the key")
        _check_access(file, status, environ)
        text = os.read(descriptor, _FILE_MAX)
    finally:
        os.close(descriptor)
    return _decode(text, str(file))


def _not_ours(file: Path) -> OperatorError:
    """Why a file may not be read. Root of a container without CAP_DAC_OVERRIDE reads its own files only."""
    user = os.geteuid()
    try:
        status = file.stat()
    except OSError:
        return OperatorError(f"{file}: user {user} may not look there: run as root, or check its directory")
    mode = stat.S_IMODE(status.st_mode)
    todo = f"chown {user} {file} (in a container: the file on the host)" if user == 0 else "run as root"
    return OperatorError(
        f"{file}: belongs to user {status.st_uid}, mode {mode:04o}: user {user} may not read it: {todo}"
    )


def _decode(text: bytes, source: str) -> bytes:
    lines = [line.strip() for line in decode(text, source).split("\n") if line.strip()]
    if len(lines) > 1 and all(line.isprintable() for line in lines):
        raise OperatorError(f"{source}: holds {len(lines)} lines, and a key is one: take the others out")
    encoded = "".join(lines)
    with contextlib.suppress(binascii.Error, ValueError):
        key = base64.b64decode(encoded, validate=True)
        if len(key) == KEY_SIZE and base64.b64encode(key).decode() == encoded:
            return key
    raise OperatorError(
        f"{source}: not a key: it must hold {KEY_SIZE} bytes in base64 (44 characters) on one line, "
        "as `mcencrypt keygen` writes it"
    )


def _check_access(file: Path, status: os.stat_result, environ: Mapping[str, str]) -> None:
    if _is_provided(file, environ):
        return
    if status.st_mode & 0o077:
        mode = stat.S_IMODE(status.st_mode)
        raise OperatorError(f"{file}: other users can reach it (mode {mode:04o}): chmod 600 {file}")
    if status.st_uid not in (0, os.geteuid()):
        raise OperatorError(f"{file}: belongs to user {status.st_uid}, who can change it: chown root {file}")


def _is_provided(file: Path, environ: Mapping[str, str]) -> bool:
    """True for a secret that Docker (0444 by default) or systemd (LoadCredential) put into a place of its
    own.

    They decide its mode; the directory, which is mounted for this container or service alone, keeps others
    out.
    """
    places = [_SECRET_DIRECTORY]
    if environ.get("CREDENTIALS_DIRECTORY"):
        places.append(Path(environ["CREDENTIALS_DIRECTORY"]))
    return any(file.resolve().is_relative_to(place.resolve()) for place in places)
