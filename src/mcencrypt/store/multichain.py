"""The P2P ports of a MultiChain blockchain, read from the files that multichaind itself reads.

``params.dat`` has the chain's port (default-network-port); ``port`` in the chain's multichain.conf, or in
the one for all chains, overrides it on this node (mc_Params::ReadConfig, src/utils/utilwrapper.cpp of
MultiChain). ``bind`` and ``whitebind`` name a port with an address; ``addnode``, ``connect`` and ``seednode`` a peer's.
Peers can sit on any of them, so all are kept.
"""

from __future__ import annotations

import re
from pathlib import Path

from mcencrypt.errors import OperatorError

PORT_MIN, PORT_MAX = 1, 65535

#: Settings that name a P2P port of this node, and such that name peers: ADDRESS, or ADDRESS:PORT.
LISTENS = ("port", "bind", "whitebind")
DIALS = ("addnode", "connect", "seednode")
#: Settings that name a port for API requests, which is never for peers.
RPC = ("rpcport", "rpcbind")

# What stands behind the address: [2001:db8::1]:9000, 10.0.0.1:9000, host:9000; more colons without brackets are IPv6.
_ADDRESS_PORT = re.compile(r"(?:\[[^]]*\]|[^:\[\]]*):([^:\[\]]*)")
_CHAIN_NAME = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9._-]*")
_ADVICE = "or list the ports in `ports` instead of the chain in `chains`"


def chain_ports(multichain_dir: Path, chain: str) -> tuple[int, ...]:
    """The ports that nodes of this chain are reached at as far as this host knows: the chain's first.

    Raises OperatorError, naming the file.
    """
    if not _CHAIN_NAME.fullmatch(chain):
        raise OperatorError(f"chains: {chain!r} is not a chain name: give the name of a directory")
    directory = multichain_dir / chain
    params = directory / "params.dat"
    settings = _settings(params)
    if settings is None:
        raise OperatorError(
            f"{params}: not found: set multichain_dir to the directory that holds chain {chain}'s, {_ADVICE}"
        )
    if "defaultnetworkport" not in settings:
        raise OperatorError(f"{params}: no default-network-port: finish joining chain {chain} first, {_ADVICE}")
    ports = [_port(params, "default-network-port", settings["defaultnetworkport"])]
    for conf in (directory / "multichain.conf", multichain_dir / "multichain.conf"):
        for key, values in parse_all(_text(conf) or "").items():
            if key in (*LISTENS, *DIALS):
                named = (port_text(key, value) for value in (values[:1] if key == "port" else values))
                ports += [_port(conf, key, port) for port in named if port is not None]
    return tuple(dict.fromkeys(ports))


def port_text(key: str, value: str) -> str | None:
    """What stands where a setting's value has the port, None if it has none: ``9000`` of ``bind=[::]:9000``.

    `key` is one of `LISTENS`, `DIALS` or `RPC`. Whether it is a number is for the caller to say.
    """
    if key in ("port", "rpcport"):
        return value
    found = _ADDRESS_PORT.fullmatch(value)
    return found and found[1]


def port_number(key: str, value: str) -> int | None:
    """The port in a setting's value, None if there is none or it is none."""
    text = port_text(key, value)
    if text is None or not re.fullmatch(r"[0-9]{1,5}", text) or not PORT_MIN <= int(text) <= PORT_MAX:
        return None
    return int(text)


def _port(file: Path, key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value) or not PORT_MIN <= int(value) <= PORT_MAX:
        raise OperatorError(f"{file}: {key} = {value} is not a port ({PORT_MIN} to {PORT_MAX}): correct it")
    return int(value)


def _settings(file: Path) -> dict[str, str] | None:
    """The file's settings, or None without the file."""
    text = _text(file)
    return None if text is None else parse_settings(text)


def _text(file: Path) -> str | None:
    try:
        return file.read_text(encoding="utf-8-sig", errors="replace")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise OperatorError(f"{file}: {error.strerror}: make it readable for mcencrypt, {_ADVICE}") from None


def parse_settings(text: str) -> dict[str, str]:
    """A file's settings, of each the one that counts, which is the first. See `parse_all`."""
    return {key: values[0] for key, values in parse_all(text).items()}


def parse_all(text: str) -> dict[str, list[str]]:
    """A file's ``key = value`` lines as multichaind takes them, all values of each key in their order.

    Hyphens and underscores in a key do not count, and a key after a ``[section]`` is another key.
    """
    settings: dict[str, list[str]] = {}
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            break
        key, separator, value = line.partition("=")
        if separator:
            settings.setdefault(re.sub("[-_]", "", key.strip()), []).append(value.strip())
    return settings
