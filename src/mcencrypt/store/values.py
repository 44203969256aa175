"""Values of the configuration: what each key takes, and what is said of what it does not take.

A checker gets the value as TOML has it; where a value comes as text, from the environment, `FROM_TEXT` makes that of it
first. Whatever is wrong is one OperatorError that begins with the value's source.
"""

from __future__ import annotations

import base64
import difflib
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple, get_args

from mcencrypt.core.policy import MODES
from mcencrypt.errors import OperatorError
from mcencrypt.store.multichain import PORT_MAX, PORT_MIN
from mcencrypt.target import Target

#: Who may connect: whoever has the network key, or only the peers that are listed.
Trust = Literal["network-key", "listed"]
TRUST: Final[tuple[Trust, ...]] = get_args(Trust)
LOG_LEVELS = ("debug", "info", "warning", "error")
LOG_FORMATS = ("text", "json")

Network = IPv4Network | IPv6Network


class Listen(NamedTuple):
    """A TCP address to listen on: an IP address, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Source:
    """Where a value comes from: how an error names it, and what relative paths start from."""

    name: str
    directory: Path

    def error(self, problem: str) -> OperatorError:
        return OperatorError(f"{self.name}: {problem}")


def meant(word: str, known: Iterable[str], show: Callable[[str], str] = str) -> str:
    close = difflib.get_close_matches(word.lower(), list(known), n=1, cutoff=0.7)
    return f", did you mean {show(close[0])}?" if close else ""


def _list(source: Source, value: object, of: type, example: str) -> list[Any]:
    if not isinstance(value, list) or any(type(item) is not of for item in value):
        mistaken = isinstance(value, list) and all(type(item) in (int, str) for item in value)
        kind = (" of numbers, without quotes" if of is int else " of texts, in quotes") if mistaken else ""
        raise source.error(f"must be a list{kind}, as in {example}")
    return value


def _split(source: Source, text: str) -> list[str]:
    items = [item.strip() for item in text.split(",")]
    words = re.findall(r"[^\s,;\[\]\"']+", text)
    if words and words != items and any(re.search(r"[\s;\[\]\"']", item) for item in items):
        raise source.error(f"{text!r}: separate by commas, as in {','.join(words)}")
    return items


def same(source: Source, text: str) -> str:
    return text


def _number(source: Source, text: str) -> int:
    if not re.fullmatch(r"\s*[0-9]{1,9}\s*", text):
        raise source.error(f"{text!r} is not a number")
    return int(text)


def _ports_or_auto(source: Source, value: object) -> tuple[int, ...] | Literal["auto"]:
    if isinstance(value, str) and value.strip().lower() == "auto":
        return "auto"
    return _ports(source, value)


def _ports(source: Source, value: object) -> tuple[int, ...]:
    ports = _list(source, value, int, "[7331, 8571]")
    for port in ports:
        if not PORT_MIN <= port <= PORT_MAX:
            raise source.error(f"{port} is not a port ({PORT_MIN} to {PORT_MAX})")
        if ports.count(port) > 1:
            raise source.error(f"{port} is listed twice: remove one")
    return tuple(ports)


def _ports_or_auto_from_text(source: Source, text: str) -> list[int] | str:
    return text if text.strip().lower() == "auto" else _ports_from_text(source, text)


def _ports_from_text(source: Source, text: str) -> list[int]:
    return [_number(source, item) for item in _split(source, text)]


def _chains(source: Source, value: object) -> tuple[str, ...]:
    chains = _list(source, value, str, '["chain1"]')
    for chain in chains:
        if not chain or "/" in chain or chain.startswith("."):
            raise source.error(f"{chain!r} is not a chain name: give the name that multichaind is started with")
        if chains.count(chain) > 1:
            raise source.error(f"{chain} is listed twice: remove one")
    return tuple(chains)


def _networks(source: Source, value: object) -> tuple[Network, ...]:
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


def _path(source: Source, value: object) -> Path:
    if not isinstance(value, str) or not value.strip() or "\0" in value:
        raise source.error("must be a path in quotes")
    try:
        return source.directory.absolute() / Path(value).expanduser()
    except RuntimeError:
        raise source.error(f"{value!r}: that home directory is not known: write the whole path") from None


def _one_of(words: tuple[str, ...]) -> Callable[[Source, object], str]:
    def check(source: Source, value: object) -> str:
        if isinstance(value, str) and value.strip().lower() in words:
            return value.strip().lower()
        guess = meant(value, words) if isinstance(value, str) else ""
        raise source.error(f"{value!r} is not one of {', '.join(words)}{guess}")

    return check


def _listen(source: Source, value: object) -> Listen:
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


def _group(source: Source, value: object) -> str | None:
    if not isinstance(value, str) or (value and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}", value)):
        raise source.error(f"{value!r} is not the name of a group")
    return value or None


def _public_key(source: Source, value: object) -> bytes | None:
    if isinstance(value, str) and not value:
        return None
    try:
        key = base64.b64decode(value, validate=True) if isinstance(value, str) else b""
    except ValueError:
        key = b""
    if len(key) != 32:
        raise source.error("must be a public key in base64 (44 characters), as `mcencrypt peers sign` shows it")
    return key


def _queue_number(source: Source, value: object) -> int:
    if type(value) is not int or not 0 <= value <= 65535:
        raise source.error(f"{value!r} is not a queue number (0 to 65535)")
    return value


def _fence_mark(source: Source, value: object) -> int:
    if type(value) is not int or not 0 < value <= 0xFFFFFFFF or value & (value - 1):
        raise source.error(f"{value!r} is not one bit of a packet's mark: write it as 0x20")
    return value


def _fence_mark_from_text(source: Source, text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise source.error(f"{text!r} is not a number: write it as 0x20") from None


def _netns(source: Source, value: object) -> Target | None:
    if not isinstance(value, str):
        raise source.error("must be a name in quotes")
    try:
        return Target.parse(value) if value else None
    except ValueError as problem:
        raise source.error(str(problem)) from None


KEYS: dict[str, Callable[[Source, object], object]] = {
    "ports": _ports_or_auto,
    "other_ports": _ports,
    "chains": _chains,
    "multichain_dir": _path,
    "network_key_file": _path,
    "identity_file": _path,
    "mode": _one_of(MODES),
    "allow_plaintext": _networks,
    "relayed": _networks,
    "probes": _networks,
    "trust": _one_of(TRUST),
    "pin": lambda source, value: _one_of(("true", "false"))(source, str(value)) == "true",
    "peers_file": _path,
    "peers_signed_by": _public_key,
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
FROM_TEXT: dict[Callable[[Source, object], object], Callable[[Source, str], object]] = {
    _ports_or_auto: _ports_or_auto_from_text,
    _ports: _ports_from_text,
    _chains: _split,
    _networks: _split,
    _queue_number: _number,
    _fence_mark: _fence_mark_from_text,
}
