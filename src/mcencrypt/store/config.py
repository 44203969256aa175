"""The configuration: a TOML file, overridden by the environment, overridden by the command line.

Every key is also MCENCRYPT_<KEY>, with lists separated by commas. Whatever is wrong is one OperatorError
that names the file or variable and the key.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

from mcencrypt.core.policy import MODES, Mode
from mcencrypt.errors import OperatorError
from mcencrypt.store.autoports import read_ports
from mcencrypt.store.keys import NetworkKey, load_network_key
from mcencrypt.store.multichain import PORT_MAX, PORT_MIN, chain_ports
from mcencrypt.store.peers import load_peers
from mcencrypt.store.texts import parse_toml
from mcencrypt.target import Target

DEFAULT_FILE = Path("/etc/mcencrypt/config.toml")
#: Name of the systemd credential that holds the network key where network_key_file is not set.
CREDENTIAL = "network.key"
#: Who may connect: whoever has the network key, or only the peers that are listed.
Trust = Literal["network-key", "listed"]
TRUST: Final[tuple[Trust, ...]] = get_args(Trust)
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")

_PREFIX = "MCENCRYPT_"
_NOT_KEYS = {"CONFIG", "INTERPRETED", "IPTABLES"}
# Kubernetes and Docker links set MCENCRYPT_PORT=tcp://... and more for a service that is called mcencrypt.
_SERVICE_LINK = re.compile(r".*_SERVICE_(HOST|PORT)(_\w+)?|(.*_)?PORT_\d+_(TCP|UDP|SCTP)(_\w+)?")
_LINK_VALUE = re.compile(r"(tcp|udp|sctp)://.*")

Network = IPv4Network | IPv6Network


class Listen(NamedTuple):
    """A TCP address to listen on: an IP address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


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
    #: "require": only encrypted connections. "prefer": plaintext with peers that have no mcencrypt.
    mode: Mode = "require"
    allow_plaintext: tuple[Network, ...] = ()
    #: "network-key": every peer that has the network key. "listed": only those in the peers file.
    trust: Trust = "network-key"
    #: Not set: `peers.toml` in `state_dir`. See `peers_path`.
    peers_file: Path | None = None
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

    def peers(self) -> dict[bytes, str]:
        """Names of the peers by public key.

        Raises OperatorError: the file is wrong; or only listed peers are trusted, and none is listed.
        """
        file = self.peers_path
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
            return {}
        if not peers and self.trust == "listed":
            raise OperatorError(
                f'peers_file: {file}: lists nobody, and trust = "listed" trusts nobody else: '
                "`mcencrypt peers add NAME KEY`"
            )
        return peers

    def network_key(self) -> NetworkKey:
        """The network key. Raises OperatorError that names the file and the key that set it."""
        try:
            return load_network_key(self.network_key_file)
        except OperatorError as error:
            raise OperatorError(f"network_key_file: {error}") from None

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
        if key not in _KEYS:
            raise OperatorError(f"{file}: {key}: no such key{_meant(key, _KEYS)}")
        values[key] = _KEYS[key](_Source(f"{file}: {key}", file.parent), value)
    for key, text in _from_environment(environ).items():
        source = _Source(f"{_PREFIX}{key.upper()}", Path.cwd())
        values[key] = _KEYS[key](source, _FROM_TEXT.get(_KEYS[key], _same)(source, text))
    for key, value in overrides.items():
        if value is not None:
            source = _Source(f"--{key.replace('_', '-')}", Path.cwd())
            values[key] = _KEYS[key](source, str(value) if isinstance(value, Path) else value)
    if "network_key_file" not in values and environ.get("CREDENTIALS_DIRECTORY"):
        # LoadCredential=network.key:FILE in the unit; see "Credentials" in systemd.exec(5)
        credential = Path(environ["CREDENTIALS_DIRECTORY"]) / CREDENTIAL
        if credential.is_file():
            values["network_key_file"] = credential
    if "multichain_dir" not in values:
        values["multichain_dir"] = _path(_Source("multichain_dir", Path.cwd()), str(Config.multichain_dir))
    if values.get("netns"):
        for key in ("state_dir", "run_dir"):
            values.setdefault(key, getattr(Config, key) / "netns" / str(values["netns"]))
    return Config(**values, file=None if table is None else file)


@dataclass(frozen=True)
class _Source:
    """Where a value comes from: how an error names it, and what relative paths start from."""

    name: str
    directory: Path

    def error(self, problem: str) -> OperatorError:
        return OperatorError(f"{self.name}: {problem}")


def _read(file: Path, must_exist: bool) -> dict[str, Any] | None:
    try:
        return parse_toml(file.read_bytes(), str(file))
    except FileNotFoundError:
        if not must_exist:
            return None
        raise OperatorError(f"{file}: not found: create it, or name another file with --config") from None
    except OSError as error:
        folder = (
            "is a folder, as Docker makes for a file that is not there: put the file there" if file.is_dir() else ""
        )
        raise OperatorError(f"{file}: {folder or f'{error.strerror}: run as root, or make it readable'}") from None


def _from_environment(environ: Mapping[str, str]) -> dict[str, str]:
    found = {}
    for name, text in environ.items():
        short = name.removeprefix(_PREFIX)
        if short == name or short in _NOT_KEYS or not text.strip():
            continue
        key = short.lower()
        if key in _KEYS and short.isupper():
            found[key] = text
        elif not (_LINK_VALUE.fullmatch(text) or _SERVICE_LINK.fullmatch(short)):
            # Other programs' variables may well begin like ours; one letter off is a mistake.
            guess = _meant(key, _KEYS, lambda known: _PREFIX + known.upper())
            if guess:
                raise OperatorError(f"{name}: no such variable{guess}")
    return found


def _meant(word: str, known: Iterable[str], show: Callable[[str], str] = str) -> str:
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.7)
    return f", did you mean {show(close[0])}?" if close else ""


def _list(source: _Source, value: object, of: type, example: str) -> list[Any]:
    if not isinstance(value, list) or any(type(item) is not of for item in value):
        raise source.error(f"must be a list, as in {example}")
    return value


def _split(source: _Source, text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    words = re.findall(r"[^\s,;\[\]\"']+", text)
    if words and words != items and any(re.search(r"[\s;\[\]\"']", item) for item in items):
        raise source.error(f"{text!r}: separate by commas, as in {','.join(words)}")
    return items


def _same(source: _Source, text: str) -> str:
    return text


def _number(source: _Source, text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        raise source.error(f"{text!r} is not a number")
    return int(text)


def _ports_or_auto(source: _Source, value: object) -> tuple[int, ...] | Literal["auto"]:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    return _ports(source, value)


def _ports(source: _Source, value: object) -> tuple[int, ...]:
    ports = _list(source, value, int, "[7331, 8571]")
    for port in ports:
        if not PORT_MIN <= port <= PORT_MAX:
            raise source.error(f"{port} is not a port ({PORT_MIN} to {PORT_MAX})")
        if ports.count(port) > 1:
            raise source.error(f"{port} is listed twice: remove one")
    return tuple(ports)


def _ports_or_auto_from_text(source: _Source, text: str) -> list[int] | str:
    return text if text.strip().lower() == "auto" else _ports_from_text(source, text)


def _ports_from_text(source: _Source, text: str) -> list[int]:
    return [_number(source, item) for item in _split(source, text)]


def _chains(source: _Source, value: object) -> tuple[str, ...]:
    chains = _list(source, value, str, '["chain1"]')
    for chain in chains:
        if not chain or "/" in chain or chain.startswith("."):
            raise source.error(f"{chain!r} is not a chain name: give the name that multichaind is started with")
        if chains.count(chain) > 1:
            raise source.error(f"{chain} is listed twice: remove one")
    return tuple(chains)


def _networks(source: _Source, value: object) -> tuple[Network, ...]:
    networks = []
    for text in _list(source, value, str, '["10.1.0.0/16", "2001:db8::7"]'):
        try:
            networks.append(ip_network(text))
        except ValueError:
            try:
                hint = f": for the network write {ip_network(text, strict=False)}"
            except ValueError:
                hint = ': write it as "10.1.0.0/16", or one address without a slash'
            raise source.error(f"{text!r} is not a network{hint}") from None
    return tuple(networks)


def _path(source: _Source, value: object) -> Path:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise source.error("must be a path in quotes")
    try:
        return source.directory.absolute() / Path(value).expanduser()
    except RuntimeError:
        raise source.error(f"{value!r}: that home directory is not known: write the whole path") from None


def _one_of(words: tuple[str, ...]) -> Callable[[_Source, object], str]:
    def check(source: _Source, value: object) -> str:
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        guess = _meant(value, words) if isinstance(value, str) else ""
        raise source.error(f"{value!r} is not one of {', '.join(words)}{guess}")

    return check


def _listen(source: _Source, value: object) -> Listen:
    example = '"127.0.0.1:9464" or "[::1]:9464"'
    found = re.fullmatch(r"(?:\[([^]]*)\]|([^:]*)):([0-9]{1,5})", value.strip()) if isinstance(value, str) else None
    if found is None:
        raise source.error(f"{value!r} is not an address and a port: write it as {example}")
    bracketed, bare, port = found.groups()
    try:
        host = ip_address(bracketed or bare)
    except ValueError:
        raise source.error(f"{value!r}: {bracketed or bare!r} is not an IP address: write it as {example}") from None
    if host.version != (6 if bracketed else 4):
        raise source.error(f"{value!r} is not an address and a port: write it as {example}")
    if not PORT_MIN <= int(port) <= PORT_MAX:
        raise source.error(f"{int(port)} is not a port ({PORT_MIN} to {PORT_MAX})")
    return Listen(str(host), int(port))


def _group(source: _Source, value: object) -> str | None:
    if not isinstance(value, str) or (value and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", value)):
        raise source.error(f"{value!r} is not the name of a group")
    return value or None


def _queue_number(source: _Source, value: object) -> int:
    if type(value) is not int or not 0 <= value <= 65535:
        raise source.error(f"{value!r} is not a queue number (0 to 65535)")
    return value


def _fence_mark(source: _Source, value: object) -> int:
    if type(value) is not int or not 0 < value <= 0xFFFFFFFF or value & (value - 1):
        raise source.error(f"{value!r} is not one bit of a packet's mark: write it as 0x20")
    return value


def _fence_mark_from_text(source: _Source, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise source.error(f"{text!r} is not a number: write it as 0x20") from None


def _netns(source: _Source, value: object) -> Target | None:
    if not isinstance(value, str):
        raise source.error("must be a name in quotes")
    try:
        return Target.parse(value) if value else None
    except ValueError as problem:
        raise source.error(str(problem)) from None


_KEYS: dict[str, Callable[[_Source, object], object]] = {
    "ports": _ports_or_auto,
    "other_ports": _ports,
    "chains": _chains,
    "multichain_dir": _path,
    "network_key_file": _path,
    "mode": _one_of(MODES),
    "allow_plaintext": _networks,
    "trust": _one_of(TRUST),
    "peers_file": _path,
    "state_dir": _path,
    "run_dir": _path,
    "status_group": _group,
    "log_level": _one_of(LOG_LEVELS),
    "log_format": _one_of(LOG_FORMATS),
    "metrics_listen": _listen,
    "queue_number": _queue_number,
    "fence_mark": _fence_mark,
    "netns": _netns,
}
_FROM_TEXT: dict[Callable[[_Source, object], object], Callable[[_Source, str], object]] = {
    _ports_or_auto: _ports_or_auto_from_text,
    _ports: _ports_from_text,
    _chains: _split,
    _networks: _split,
    _queue_number: _number,
    _fence_mark: _fence_mark_from_text,
}
assert set(_KEYS) == {field.name for field in fields(Config)} - {"file"}
