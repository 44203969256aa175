"""A filter that the kernel runs on each captured packet (classic BPF, filter.txt of the kernel's documentation)."""

from __future__ import annotations

import struct
from collections.abc import Sequence

#: What may stand between a link's header and IP, and is left to the reader: VLAN tags, MPLS labels, PPPoE.
WRAPPED = (0x8100, 0x88A8, 0x9100, 0x8847, 0x8848, 0x8864)
#: With more ports than that all TCP is passed on, and the reader chooses.
MAX_PORTS = 40

_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_LOAD_HALF_INDEXED = 0x48
_LOAD_IHL = 0xB1  # X = 4 * (packet[k] & 15)
_LOAD_X = 0x01
_JUMP_EQUAL, _JUMP_SET = 0x15, 0x45
_RETURN = 0x06
_ANCILLARY = 0xFFFFF000
_PROTOCOL, _HARDWARE = _ANCILLARY, _ANCILLARY + 28
_LOOPBACK = 772  # ARPHRD_LOOPBACK
_TCP = 6
_EXTENSIONS = (0, 43, 44, 60)
_ALL = 0x40000
_INSTRUCTION = struct.Struct("=HBBI")

#: The filter that passes no packet.
NOTHING = _INSTRUCTION.pack(_RETURN, 0, 0, 0)

# An instruction: code, value, label for yes, label for no ("" goes on with the next).
_Line = tuple[int, int, str, str]


def tcp_filter(ports: Sequence[int]) -> bytes:
    """Instructions that pass TCP segments of these ports, on any interface but loopback, to a SOCK_DGRAM socket.

    What cannot be told - IP fragments, IPv6 extension headers, VLAN tags in the packet - passes, for the reader to
    judge.
    """
    lines: list[_Line | str] = [
        (_LOAD_WORD, _HARDWARE, "", ""),
        (_JUMP_EQUAL, _LOOPBACK, "drop", ""),
        (_LOAD_WORD, _PROTOCOL, "", ""),
        *((_JUMP_EQUAL, kind, "pass", "") for kind in WRAPPED),
        (_JUMP_EQUAL, 0x86DD, "six", ""),
        (_JUMP_EQUAL, 0x0800, "", "drop"),
        (_LOAD_BYTE, 9, "", ""),
        (_JUMP_EQUAL, _TCP, "", "drop"),
        (_LOAD_HALF, 6, "", ""),
        (_JUMP_SET, 0x1FFF, "pass", ""),
        (_LOAD_IHL, 0, "", ""),
    ]
    if len(ports) > MAX_PORTS:
        lines += [(_JUMP_EQUAL, 0, "pass", "pass"), "six", (_LOAD_BYTE, 6, "", ""), (_JUMP_EQUAL, _TCP, "pass", "")]
        lines += [(_JUMP_EQUAL, extension, "pass", "") for extension in _EXTENSIONS]
    else:
        for at in (0, 2):
            lines.append((_LOAD_HALF_INDEXED, at, "", ""))
            lines += [(_JUMP_EQUAL, port, "pass", "") for port in ports]
        lines += [(_JUMP_EQUAL, _ALL, "drop", "drop"), "six", (_LOAD_BYTE, 6, "", "")]
        lines += [(_JUMP_EQUAL, extension, "pass", "") for extension in _EXTENSIONS]
        lines += [(_JUMP_EQUAL, _TCP, "", "drop"), (_LOAD_X, 40, "", "")]
        for at in (0, 2):
            lines.append((_LOAD_HALF_INDEXED, at, "", ""))
            lines += [(_JUMP_EQUAL, port, "pass", "") for port in ports]
    lines += ["drop", (_RETURN, 0, "", ""), "pass", (_RETURN, _ALL, "", "")]
    return _assemble(lines)


def _assemble(lines: Sequence[_Line | str]) -> bytes:
    """Labels become distances; jumps only go forward."""
    places: dict[str, int] = {}
    program: list[_Line] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(program)
        else:
            program.append(line)
    code = bytearray()
    for at, (operation, value, yes, no) in enumerate(program):
        jumps = [places[label] - at - 1 if label else 0 for label in (yes, no)]
        code += _INSTRUCTION.pack(operation, *jumps, value)
    return bytes(code)
