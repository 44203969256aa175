"""Addresses, with a port or for all of them, as people write them and as the core has them: packed."""

from __future__ import annotations

import re
from ipaddress import ip_address

from mcencrypt.errors import OperatorError


def parse_endpoint(text: str) -> bytes:
    """``192.0.2.7``, ``192.0.2.7:7331``, ``2001:db8::7`` or ``[2001:db8::7]:7331`` as packed address, or + port.

    Raises OperatorError.
    """
    found = re.fullmatch(
        r"\[([0-9A-Fa-f:.]+)\](?::([0-9]{1,5}))?|([0-9.]+):([0-9]{1,5})|([0-9A-Fa-f:.]+)", text.strip()
    )
    if found is not None:
        bracketed, port_6, plain, port_4, bare = found.groups()
        port = port_6 or port_4
        try:
            address = ip_address(bracketed or plain or bare)
        except ValueError:
            pass
        else:
            if (not bracketed or address.version == 6) and (port is None or 0 < int(port) < 65536):
                return address.packed + (b"" if port is None else int(port).to_bytes(2, "big"))
    raise OperatorError(
        f'{text[:80]!r} is not an address: write it as "192.0.2.7", "192.0.2.7:7331", "2001:db8::7" or '
        '"[2001:db8::7]:7331"'
    )


def endpoint_text(endpoint: bytes) -> str:
    """The same for people."""
    with_port = len(endpoint) in (6, 18)
    address = ip_address(endpoint[:-2] if with_port else endpoint)
    if not with_port:
        return str(address)
    port = int.from_bytes(endpoint[-2:], "big")
    return f"{address}:{port}" if address.version == 4 else f"[{address}]:{port}"
