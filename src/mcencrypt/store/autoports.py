"""The ports that ``ports = "auto"`` has found, by chain: kept in `state_dir`, so that they are covered before a node
starts again.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from mcencrypt.errors import OperatorError
from mcencrypt.store.files import replace_file
from mcencrypt.store.multichain import PORT_MAX, PORT_MIN

_NAME = "ports.json"
_CHAIN = re.compile(r"[\x21-\x7e]{0,64}")


def read_ports(state_dir: Path) -> dict[str, tuple[int, ...]]:
    """By chain, {} if none was found yet. Raises OperatorError if the file is there and wrong."""
    file = state_dir / _NAME
    try:
        found = json.loads(file.read_text())
        ports = {str(chain): tuple(map(_port, numbers)) for chain, numbers in found.items()}
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OperatorError(f"{file}: cannot be read: {error.strerror}: run as root") from None
    except (ValueError, TypeError, AttributeError):
        raise OperatorError(f"{file}: not as mcencrypt wrote it: remove it, and start the nodes first") from None
    return ports


def write_ports(state_dir: Path, ports: Mapping[str, tuple[int, ...]]) -> None:
    """Keep them. Raises OperatorError."""
    kept = {chain: list(numbers) for chain, numbers in ports.items() if _CHAIN.fullmatch(chain)}
    replace_file(state_dir / _NAME, json.dumps(kept, sort_keys=True).encode() + b"\n")


def _port(number: object) -> int:
    if type(number) is not int or not PORT_MIN <= number <= PORT_MAX:
        raise ValueError(number)
    return number
