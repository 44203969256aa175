"""The P2P ports of a MultiChain blockchain, read from the files that multichaind itself reads.

``params.dat`` has the chain's port (default-network-port); ``port`` in the chain's multichain.conf, or in
the one for all chains, overrides it on this node (mc_Params::ReadConfig, src/utils/utilwrapper.cpp of
MultiChain). Peers can sit on either, so all are kept.
"""

from __future__ import annotations

import re
from pathlib import Path

from mcencrypt.errors import OperatorError

PORT_MIN, PORT_MAX = 1, 65535

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
        value = (_settings(conf) or {}).get("port")
        if value is not None:
            ports.append(_port(conf, "port", value))
    return tuple(dict.fromkeys(ports))


def _port(file: Path, key: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,5}", value) or not PORT_MIN <= int(value) <= PORT_MAX:
        raise OperatorError(f"{file}: {key} = {value} is not a port ({PORT_MIN} to {PORT_MAX}): correct it")
    return int(value)


def _settings(file: Path) -> dict[str, str] | None:
    """The file's settings, or None without the file."""
    try:
        text = file.read_text(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise OperatorError(f"{file}: {error.strerror}: make it readable for mcencrypt, {_ADVICE}") from None
    return parse_settings(text)


def parse_settings(text: str) -> dict[str, str]:
    """A file's ``key = value`` lines as multichaind takes them.

    The first of several counts, hyphens and underscores in a key do not, and a key after a ``[section]`` is
    another key.
    """
    settings: dict[str, str] = {}
    for line in text.splitlines():
        line = line.partition("#")[0].strip()
        if line.startswith("["):
            break
        key, separator, value = line.partition("=")
        if separator:
            settings.setdefault(re.sub("[-_]", "", key.strip()), value.strip())
    return settings
