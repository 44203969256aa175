"""Matches for ICMP errors that quote a segment from or to some ports, in iptables-save's own spelling.

u32 looks into the quotation, so that other programs' ICMP never comes to us. Where the kernel or iptables has no u32,
all errors of the kinds that matter do, and those that are not ours go on at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mcencrypt.kernel.iptables import V4

#: Values that one u32 comparison takes (XT_U32_MAXSIZE in xt_u32.h, less one).
U32_MAX: Final = 10

# `A@B` moves on by A and reads from there (iptables-extensions(8), u32). IPv4: behind the header of the packet comes
# ICMP, its type first; 8 bytes on the quoted packet, its protocol in byte 9; behind the header of that the ports.
# The same in IPv6 has fixed places, if the next header is ICMPv6 (58), and that of the quoted packet TCP (6).
_IPV4: Final = (
    "0x0>>0x16&0x3c@0x0>>0x18=0x3,0x5,0xb,0xc&&0x0>>0x16&0x3c@0xe&0xff=0x6"
    "&&0x0>>0x16&0x3c@0x8>>0x16&0x3c@0x8{port}={ports}"
)
_IPV6: Final = "0x3&0xff=0x3a&&0x28>>0x18=0x1:0x4&&0x33&0xff=0x6&&0x58{port}={ports}"
_SOURCE, _DESTINATION = ">>0x10", "&0xffff"


def matches(family: str, ports: Sequence[int], selective: bool) -> list[str]:
    """Matches, one of which an ICMP error must meet; `selective`: with u32."""
    if not selective:
        kinds = ("3", "5", "11", "12") if family == V4 else ("1", "2", "3", "4")
        words = "-m icmp --icmp-type" if family == V4 else "-m icmp6 --icmpv6-type"
        return [f"{words} {kind}" for kind in kinds]
    test = _IPV4 if family == V4 else _IPV6
    groups = [ports[at : at + U32_MAX] for at in range(0, len(ports), U32_MAX)]
    listed = [",".join(f"{port:#x}" for port in group) for group in groups]
    return [
        f'-m u32 --u32 "{test.format(port=port, ports=some)}"' for port in (_SOURCE, _DESTINATION) for some in listed
    ]
