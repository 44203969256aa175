"""A peers list that one admin signs, for nodes that take no other.

A TOML file as `peers` has it, with a table [list] before, and one last line under it:

    [list]
    serial = 1795000000               # when it was signed, seconds since 1970: of two lists the later one counts
    expires = 1802000000              # from when on it counts no more
    [peers]
    org-a = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="
    # signature ed25519 BASE64

Signed is every byte before that line. The list that was taken last is kept in `state_dir`: a list that is older, or not
there any more, changes nothing, and one that has expired trusts nobody.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from mcencrypt.errors import OperatorError
from mcencrypt.store.endpoints import endpoint_text
from mcencrypt.store.files import cannot, create_file, replace_file
from mcencrypt.store.keys import NetworkKey, read_network_key
from mcencrypt.store.peers import ListedPeers, check_peers
from mcencrypt.store.texts import decode, parse_toml

_LARGEST: Final = 1 << 20
_KEPT: Final = "peers.signed"
_SIGNATURE: Final = re.compile(rb"\A(.*\n)# signature ed25519 ([A-Za-z0-9+/=]{88})\s*\Z", re.DOTALL)
_CONTEXT: Final = b"mcencrypt peers list 1\n"
#: Lists in a folder that are looked at.
_MOST: Final = 64


class SignedList(NamedTuple):
    """A list whose signature is right."""

    #: When it was signed, and from when on it counts no more; seconds since 1970.
    serial: int
    expires: int
    #: Names by public key.
    peers: ListedPeers
    text: bytes


def create_signing_key(file: Path) -> str:
    """Make a key that signs lists, in a new file (0600); returns its public half in base64. Raises OperatorError."""
    key = Ed25519PrivateKey.generate()
    try:
        made = create_file(file, NetworkKey(key.private_bytes_raw()).text().encode())
    except OSError as error:
        raise cannot(file, "be written", error) from None
    if not made:
        raise OperatorError(f"{file}: exists already and is left as it is: name another file")
    return _public(key)


def sign(peers: ListedPeers, serial: int, expires: int, key_file: Path) -> tuple[bytes, str]:
    """A signed list, and the public key that verifies it. Raises OperatorError."""
    key = Ed25519PrivateKey.from_private_bytes(read_network_key(key_file).secret)
    lines = [f"[list]\nserial = {serial}\nexpires = {expires}\n\n[peers]\n"]
    lines += [f'"{name}" = {_entry(public, peers)}\n' for public, name in peers.items()]
    text = "".join(lines).encode()
    signature = base64.b64encode(key.sign(_CONTEXT + text))
    return text + b"# signature ed25519 " + signature + b"\n", _public(key)


def _entry(public: bytes, peers: ListedPeers) -> str:
    key = base64.b64encode(public).decode()
    own = [endpoint_text(endpoint) for endpoint, keys in peers.pinned.items() if public in keys]
    return f'{{ key = "{key}", address = {json.dumps(own)} }}' if own else f'"{key}"'


def verify(text: bytes, source: str, signer: bytes) -> SignedList:
    """The list in that text, if the holder of `signer` has signed it. Raises OperatorError that names `source`."""
    found = _SIGNATURE.match(text) if len(text) <= _LARGEST else None
    if found is None:
        raise OperatorError(f"{source}: is not signed: the admin makes it with `mcencrypt peers sign`")
    try:
        Ed25519PublicKey.from_public_bytes(signer).verify(
            base64.b64decode(found[2], validate=True), _CONTEXT + found[1]
        )
    except (InvalidSignature, binascii.Error, ValueError):
        raise OperatorError(
            f"{source}: the signature is not that of peers_signed_by: take the list from the admin once more, unchanged"
        ) from None
    table = parse_toml(found[1], source)
    about = table.get("list")
    if not isinstance(about, dict) or any(type(about.get(name)) is not int for name in ("serial", "expires")):
        raise OperatorError(f"{source}: is of another version of mcencrypt: have the same one on all nodes")
    return SignedList(about["serial"], about["expires"], check_peers(Path(source), table.get("peers", {})), text)


def current(place: Path, signer: bytes, state_dir: Path) -> SignedList:
    """The latest list: of `place`, a file or a folder in which files end in ``.peers``, and of what was taken before.

    It may have expired: that is for the caller to see. It is kept for the next time. Raises OperatorError if there is
    no list, or if what is in `place` is none that may be taken, and nothing was taken before.
    """
    kept, found, problem = state_dir / _KEPT, [], None
    for file in (*_files(place), kept):
        try:
            found.append(verify(_read(file), str(file), signer))
        except FileNotFoundError:
            continue
        except OperatorError as error:
            problem = problem or error
    if not found:
        raise problem or OperatorError(f"peers_file: {place}: there is no signed list: put the admin's there")
    latest = max(found, key=lambda one: one.serial)
    replace_file(kept, latest.text)
    return latest


def _files(place: Path) -> Iterable[Path]:
    if not os.path.isdir(place):
        return [place]
    try:
        return sorted(place.glob("*.peers"))[:_MOST]
    except OSError as error:
        raise cannot(place, "be read", error) from None


def _read(file: Path) -> bytes:
    try:
        with file.open("rb") as stream:
            text = stream.read(_LARGEST + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise cannot(file, "be read", error) from None
    decode(text, str(file))
    return text.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")


def _public(key: Ed25519PrivateKey) -> str:
    return base64.b64encode(key.public_key().public_bytes_raw()).decode()
