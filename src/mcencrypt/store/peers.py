"""The peers file: names and public keys of the nodes that this one knows.

    [peers]
    org-a = "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo="    # as `mcencrypt identity` shows it there
    org-b = { key = "3q2+7w...=", address = "192.0.2.7" }     # and at this address no other key may answer

`address` is one or a list, each with a port ("192.0.2.7:7331", "[2001:db8::7]:7331") or for all ports.
Read by the daemon, written by `mcencrypt peers`, which leaves comments and order as they are. Names are unique because
TOML's keys are; each key has one name. No name can be taken for a key, which ends in "=".
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mcencrypt.errors import OperatorError
from mcencrypt.store.endpoints import parse_endpoint
from mcencrypt.store.files import replace_file
from mcencrypt.store.keys import KEY_SIZE
from mcencrypt.store.texts import decode, parse_toml

MAX_PEERS = 4096
_FILE_MAX = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:@/-]{0,63}")
_TABLE = "peers"
_HEADER = '# name = "public key", as `mcencrypt identity` shows it on that node; `mcencrypt peers` edits this\n'


def parse_key(text: str) -> bytes:
    """A public key from base64, blanks around it or not. Raises OperatorError."""
    text = text.strip()
    with contextlib.suppress(binascii.Error, ValueError):
        key = base64.b64decode(text, validate=True)
        if len(key) == KEY_SIZE and base64.b64encode(key).decode() == text:
            return key
    raise OperatorError(
        f"{text[:80]!r} is not a public key: it is {KEY_SIZE} bytes in base64 (44 characters), "
        "as `mcencrypt identity` shows it on that node"
    )


def check_name(name: str) -> str:
    """The name, if it may be one. Raises OperatorError."""
    if not _NAME.fullmatch(name):
        raise OperatorError(f"{name[:80]!r} is not a name: 1 to 64 letters, digits and _ . : @ / -, no sign first")
    return name


class ListedPeers(dict[bytes, str]):
    """Names by public key."""

    def __init__(self) -> None:
        super().__init__()
        #: The keys that alone may answer at a packed address, or address + port.
        self.pinned: dict[bytes, frozenset[bytes]] = {}


def load_peers(file: Path) -> ListedPeers:
    """Names by public key, and their addresses.

    Raises OperatorError: what is wrong, and where; FileNotFoundError if there is no file.
    """
    return check_peers(file, _parse(file, _read(file)))


def add_peer(file: Path, name: str, key: bytes, addresses: Sequence[str] = ()) -> bool:
    """Write another peer, with addresses that are its alone, into the file, which is made if missing.

    False if all of that is there already.

    Raises OperatorError.
    """
    import tomlkit

    check_name(name)
    endpoints = {parse_endpoint(address) for address in addresses}
    with _editing(file) as text:
        peers = check_peers(file, _parse(file, text))
        if peers.get(key) == name:
            if endpoints == {endpoint for endpoint, keys in peers.pinned.items() if key in keys}:
                return False
            raise OperatorError(f"{file}: {name} is there already, with other addresses: remove it first")
        if key in peers:
            raise OperatorError(f"{file}: that key is there already, as {peers[key]}")
        if name in peers.values():
            raise OperatorError(f"{file}: {name} is there already, with another key: remove it first")
        if len(peers) >= MAX_PEERS:
            raise OperatorError(f"{file}: holds {MAX_PEERS} peers already, and no more are possible")
        document = tomlkit.parse(text or _HEADER)
        if _TABLE not in document:
            document[_TABLE] = tomlkit.table()
        encoded = base64.b64encode(key).decode()
        if addresses:
            entry = tomlkit.inline_table()
            entry.update({"key": encoded, "address": addresses[0] if len(addresses) == 1 else list(addresses)})
            document[_TABLE][name] = entry
        else:
            document[_TABLE][name] = encoded
        _write(file, tomlkit.dumps(document))
    return True


def remove_peer(file: Path, which: str) -> tuple[str, bytes, int]:
    """Take a peer out of the file, by name or key; (name, key, how many are left). Raises OperatorError."""
    import tomlkit

    with _editing(file) as text:
        peers = check_peers(file, _parse(file, text))
        found = [(name, key) for key, name in peers.items() if which in (name, base64.b64encode(key).decode())]
        if not found:
            raise OperatorError(f"{file}: no peer {which[:80]!r}: see `mcencrypt peers`")
        [(name, key)] = found
        document = tomlkit.parse(text)
        del document[_TABLE][name]
        _write(file, tomlkit.dumps(document))
    return name, key, len(peers) - 1


@contextlib.contextmanager
def _editing(file: Path) -> Iterator[str]:
    """The file's text ("" if there is none), while nobody else edits it."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        lock = os.open(file.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        raise OperatorError(f"{file}: cannot be written: {error.strerror}: run as root") from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        try:
            text = _read(file)
        except FileNotFoundError:
            text = ""
        yield text
    finally:
        os.close(lock)


def _read(file: Path) -> str:
    try:
        # O_NONBLOCK: a FIFO must not hang us.
        descriptor = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with open(descriptor, "rb") as stream:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise OperatorError(f"{file}: not a regular file: name the file that lists the peers")
            if status.st_mode & 0o022:
                raise OperatorError(f"{file}: other users can change it: chmod go-w {file}")
            if status.st_uid not in (0, os.geteuid()):
                raise OperatorError(f"{file}: belongs to user {status.st_uid}, who can change it: chown root {file}")
            text = stream.read(_FILE_MAX + 1)
    except FileNotFoundError:
        raise
    except OSError as error:
        raise OperatorError(f"{file}: cannot be read: {error.strerror}: run as root") from None
    if len(text) > _FILE_MAX:
        raise OperatorError(f"{file}: is larger than {_FILE_MAX} bytes: that is no list of {MAX_PEERS} peers")
    return decode(text, str(file))


def _parse(file: Path, text: str) -> Mapping[str, object]:
    document = parse_toml(text.encode(), str(file))
    table = document.pop(_TABLE, {})
    if document or not isinstance(table, dict):
        wrong = next(iter(document), _TABLE)
        raise OperatorError(f'{file}: {wrong}: must be a table [peers] with lines name = "key", and nothing else')
    return table


def check_peers(file: Path, table: Mapping[str, object]) -> ListedPeers:
    """Names by public key of a table of a TOML file. Raises OperatorError: what is wrong, and where."""
    if len(table) > MAX_PEERS:
        raise OperatorError(f"{file}: {len(table)} peers are more than {MAX_PEERS}")
    peers = ListedPeers()
    for name, value in table.items():
        try:
            check_name(name)
            key, endpoints = _entry(value)
        except OperatorError as error:
            raise OperatorError(f"{file}: {name[:80]}: {error}") from None
        if key in peers:
            raise OperatorError(f"{file}: {name}: has the key of {peers[key]}: remove one of them")
        peers[key] = name
        for endpoint in endpoints:
            peers.pinned[endpoint] = peers.pinned.get(endpoint, frozenset()) | {key}
    return peers


def _entry(value: object) -> tuple[bytes, list[bytes]]:
    """The key of a peer, and the addresses that are its alone."""
    if not isinstance(value, dict):
        if not isinstance(value, str):
            raise OperatorError("a key is a string in quotes")
        return parse_key(value), []
    key, addresses = value.get("key"), value.get("address", [])
    addresses = [addresses] if isinstance(addresses, str) else addresses
    if set(value) - {"key", "address"} or not isinstance(key, str) or not isinstance(addresses, list):
        raise OperatorError('must be { key = "...", address = "..." }')
    if not all(isinstance(one, str) for one in addresses):
        raise OperatorError("an address is a string in quotes")
    return parse_key(key), [parse_endpoint(one) for one in addresses]


def _write(file: Path, text: str) -> None:
    if len(text.encode()) > _FILE_MAX:
        raise OperatorError(f"{file}: would be larger than {_FILE_MAX} bytes: shorten its comments")
    # A link stays one.
    replace_file(file.resolve(), text.encode())
