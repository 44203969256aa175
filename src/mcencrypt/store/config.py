"""The configuration: a TOML file, overridden by the environment, overridden by the command line.

Every key is also MCENCRYPT_<KEY>, with lists separated by commas. Whatever is wrong is one OperatorError
that names the file or variable and the key.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from mcencrypt.core.policy import Mode
from mcencrypt.errors import OperatorError
from mcencrypt.store.autoports import read_ports
from mcencrypt.store.keys import Identity, NetworkKey, load_identity, load_network_key, read_identity
from mcencrypt.store.multichain import chain_ports
from mcencrypt.store.peers import ListedPeers, load_peers
from mcencrypt.store.texts import parse_toml
from mcencrypt.store.values import FROM_TEXT, KEYS, Listen, Network, Source, Trust, meant, same
from mcencrypt.target import Target

if TYPE_CHECKING:
    from mcencrypt.store.signedpeers import SignedList

DEFAULT_FILE = Path("/etc/mcencrypt/config.toml")
#: Name of the systemd credential that holds the network key where network_key_file is not set.
CREDENTIAL = "network.key"

_PREFIX = "MCENCRYPT_"
_FOLDER: Final = 60
#: What is no setting of the operator's.
NOT_SET: Final = {"file", "key_copied"}
_NOT_KEYS = {"CONFIG", "INTERPRETED", "IPTABLES"}
# Kubernetes and Docker links set MCENCRYPT_PORT=tcp://... and more for a service that is called mcencrypt.
_SERVICE_LINK = re.compile(r".*_SERVICE_(HOST|PORT)(_\w+)?|(.*_)?PORT_\d+_(TCP|UDP|SCTP)(_\w+)?")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*")


@dataclass(frozen=True)
class Config:
    """What the operator set. `load` checks every value; files that values name are read by the methods."""

    #: P2P ports as set; `p2p_ports` adds those of `chains`. "auto": those of the nodes that were seen here.
    ports: tuple[int, ...] | Literal["auto"] = ()
    #: Ports of other programs in the nodes' network, which are not looked at.
    other_ports: tuple[int, ...] = ()
    chains: tuple[str, ...] = ()
    multichain_dir: Path = Path("~/.multichain")
    #: Not set, and a systemd credential network.key is there: that.
    network_key_file: Path = Path("/etc/mcencrypt/network.key")
    #: This node's own key. Not set: `identity.key` in `state_dir`, which is made at first use.
    identity_file: Path | None = None
    #: "require": only encrypted connections. "prefer": plaintext with peers that have no mcencrypt.
    mode: Mode = "require"
    allow_plaintext: tuple[Network, ...] = ()
    #: Addresses of what ends TCP in front of this node (proxies, load balancers), for which peers hide behind it.
    relayed: tuple[Network, ...] = ()
    #: Addresses of health checks: a bare connection from there comes about, and never carries a byte.
    probes: tuple[Network, ...] = ()
    #: "network-key": every peer that has the network key. "listed": only those in the peers file.
    trust: Trust = "network-key"
    #: Whether a dial is refused where another key answers than before.
    pin: bool = False
    #: Not set: `peers.toml` in `state_dir`. See `peers_path`.
    peers_file: Path | None = None
    #: The public key of whoever signs the list; then peers_file is a signed list, or a folder of such.
    peers_signed_by: bytes | None = None
    state_dir: Path = Path("/var/lib/mcencrypt")
    run_dir: Path = Path("/run/mcencrypt")
    #: Members of this group of the system may see the status; None: root alone.
    status_group: str | None = None
    log_level: str = "info"
    log_format: str = "text"
    #: Where Prometheus metrics are served; None: nowhere.
    metrics_listen: Listen | None = None
    queue_number: int = 27971
    #: The bit of packets' marks that opens the fence.
    fence_mark: int = 0x20
    #: The network namespace to serve; None: the one in which the daemon is started.
    netns: Target | None = None
    #: The file that was read, if any.
    file: Path | None = None
    #: Whether network_key_file is a copy that systemd has handed over (systemd.exec(5), "Credentials").
    key_copied: bool = False

    def p2p_ports(self) -> tuple[int, ...]:
        """All ports to take, set ones first, each once. Reads the chains' files, or what was seen (`autoports`).

        Raises OperatorError if a chain cannot be read, if there is no port at all, or if one is the metrics'.
        """
        found = self._seen_ports() if self.ports == "auto" else list(self.ports)
        for chain in self.chains:
            found += chain_ports(self.multichain_dir, chain)
        if not found and self.ports == "auto":
            raise OperatorError(
                'ports = "auto": no multichaind whose ports can be told is or was seen here: start the node first, or '
                "set ports = [N]"
            )
        if not found:
            raise OperatorError(
                f"{self.file or DEFAULT_FILE}: no ports: set ports = [N] to the P2P port of your chain, "
                "or chains = [NAME]"
            )
        if self.metrics_listen is not None and self.metrics_listen.port in found:
            raise OperatorError(
                f"metrics_listen: {self.metrics_listen}: {self.metrics_listen.port} is a P2P port, on which all is "
                "encrypted: choose another port"
            )
        return tuple(dict.fromkeys(found))

    def _seen_ports(self) -> list[int]:
        return [port for ports in read_ports(self.state_dir).values() for port in ports]

    @property
    def peers_path(self) -> Path:
        """The file that lists the peers."""
        return self.peers_file or self.state_dir / "peers.toml"

    def peers(self) -> ListedPeers:
        """Names of the peers by public key, and the addresses that are theirs alone.

        Raises OperatorError: the file is wrong; or only listed peers are trusted, and none is listed.
        """
        file = self.peers_path
        signed = self.signed_list()
        if signed is not None:
            if signed.expires <= time.time():
                raise OperatorError(f"peers_file: {file}: the signed list has expired: get a new one from the admin")
            return signed.peers
        try:
            peers = load_peers(file)
        except FileNotFoundError:
            if self.trust == "listed":
                raise OperatorError(
                    f'peers_file: {file}: not found, and trust = "listed": list the peers with '
                    "`mcencrypt peers add NAME KEY`"
                ) from None
            if self.peers_file:
                raise OperatorError(f"peers_file: {file}: not found: create it, or leave peers_file out") from None
            return ListedPeers()
        if not peers and self.trust == "listed":
            raise OperatorError(
                f'peers_file: {file}: lists nobody, and trust = "listed" trusts nobody else: '
                "`mcencrypt peers add NAME KEY`"
            )
        return peers

    def signed_list(self) -> SignedList | None:
        """The latest signed list that was seen, expired or not; None where none are. Raises OperatorError."""
        if self.peers_signed_by is None:
            return None
        if self.trust != "listed":
            raise OperatorError('peers_signed_by: needs trust = "listed": otherwise nobody is kept out by the list')
        from mcencrypt.store.signedpeers import current

        return current(self.peers_path, self.peers_signed_by, self.state_dir)

    def network_key(self) -> NetworkKey:
        """The network key. Raises OperatorError that names the file and the key that set it."""
        return _network_key(self.network_key_file)

    @property
    def key_file_on_disk(self) -> Path:
        """Where the operator keeps the network key."""
        return Config.network_key_file if self.key_copied else self.network_key_file

    def key_on_disk(self) -> NetworkKey:
        """The network key as the next start gets it. Raises OperatorError."""
        return _network_key(self.key_file_on_disk)

    def identity(self) -> Identity:
        """This node's own key, made if none is there and no file is named. Raises OperatorError."""
        if self.identity_file is None:
            return load_identity(self.state_dir)
        try:
            found = read_identity(self.identity_file)
        except OperatorError as error:
            raise OperatorError(f"identity_file: {error}") from None
        try:
            shared = found.private.private_bytes_raw() == self.network_key().secret
        except OperatorError:
            # what is wrong with that one is said where it is needed
            shared = False
        if shared:
            raise OperatorError(
                f"identity_file: {self.identity_file}: holds the network key, which every node has: make a key for "
                "this node alone with `mcencrypt keygen FILE`"
            )
        return found

    @property
    def control_socket(self) -> Path:
        return self.run_dir / "control.sock"


def load(path: Path | None, environ: Mapping[str, str], **overrides: object) -> Config:
    """Read and check the configuration.

    The file is `path`, else MCENCRYPT_CONFIG, else /etc/mcencrypt/config.toml; only the last may be missing.
    `overrides` are values from the command line by key, for those that were given (None: not given). An empty
    environment variable counts as not set. A relative path means relative to the file that says it, and
    from the environment or command line relative to the working directory. With `netns`, `state_dir` and `run_dir`
    default to a folder of that name, so that several daemons can run. Raises OperatorError.
    """
    named = path or (Path(environ["MCENCRYPT_CONFIG"]) if environ.get("MCENCRYPT_CONFIG") else None)
    file = named or DEFAULT_FILE
    table = _read(file, must_exist=named is not None)
    values: dict[str, Any] = {}
    for key, value in (table or {}).items():
        if key not in KEYS:
            raise OperatorError(f"{file}: {key}: no such key{meant(key, KEYS)}")
        values[key] = KEYS[key](Source(f"{file}: {key}", file.parent), value)
    for key, text in _from_environment(environ).items():
        source = Source(f"{_PREFIX}{key.upper()}", Path.cwd())
        values[key] = KEYS[key](source, FROM_TEXT.get(KEYS[key], same)(source, text))
    for key, value in overrides.items():
        if value is not None:
            source = Source(f"--{key.replace('_', '-')}", Path.cwd())
            values[key] = KEYS[key](source, str(value) if isinstance(value, Path) else value)
    if "network_key_file" not in values and environ.get("CREDENTIALS_DIRECTORY"):
        # LoadCredential=network.key:FILE in the unit; see "Credentials" in systemd.exec(5)
        credential = Path(environ["CREDENTIALS_DIRECTORY"]) / CREDENTIAL
        if os.path.isfile(credential):
            values["network_key_file"], values["key_copied"] = credential, True
    if "multichain_dir" not in values:
        values["multichain_dir"] = KEYS["multichain_dir"](
            Source("multichain_dir", Path.cwd()), str(Config.multichain_dir)
        )
    if values.get("netns"):
        folder = str(values["netns"])
        values.setdefault("state_dir", Config.state_dir / "netns" / folder)
        values.setdefault("run_dir", Config.run_dir / "netns" / _short(folder))
    config = Config(**values, file=None if table is None else file)
    for one, other in itertools.product(config.relayed, config.allow_plaintext):
        if one.version == other.version and one.overlaps(other):
            raise OperatorError(f"{file}: relayed: {one} overlaps {other} in allow_plaintext: change one of them")
    return config


def _network_key(file: Path) -> NetworkKey:
    try:
        return load_network_key(file)
    except OperatorError as error:
        raise OperatorError(f"network_key_file: {error}") from None


def _short(folder: str) -> str:
    """A folder's name that leaves room for that of a UNIX socket, whose path is short (unix(7)): 60 characters."""
    if len(folder) <= _FOLDER:
        return folder
    return f"{folder[: _FOLDER - 17]}-{hashlib.blake2s(folder.encode(), digest_size=8).hexdigest()}"


def _read(file: Path, must_exist: bool) -> dict[str, Any] | None:
    try:
        return parse_toml(file.read_bytes(), str(file))
    except FileNotFoundError:
        if not must_exist:
            return None
        raise OperatorError(f"{file}: not found: create it, or name another file with --config") from None
    except OSError as error:
        folder = (
            "is a folder, as Docker makes for a file that is not there: put the file there"
            if os.path.isdir(file)
            else ""
        )
        raise OperatorError(f"{file}: {folder or f'{error.strerror}: run as root, or make it readable'}") from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, text in environ.items():
        short = name.removeprefix(_PREFIX)
        if short == name or short in _NOT_KEYS or not text.strip():
            continue
        key = short.lower()
        if key in KEYS and short.isupper():
            found[key] = text
        elif not (_LINK_VALUE.fullmatch(text) or _SERVICE_LINK.fullmatch(short)):
            # Other programs' variables may well begin like ours; one letter off is a mistake.
            guess = meant(key, KEYS, lambda known: _PREFIX + known.upper())
            if guess:
                raise OperatorError(f"{name}: no such variable{guess}")
    return found


assert set(KEYS) == {field.name for field in fields(Config)} - NOT_SET
