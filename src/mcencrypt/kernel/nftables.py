"""Messages of nf_tables (include/uapi/linux/netfilter/nf_tables.h), as far as the fence needs them.

An encoder of our own, because nft is not on every host, and pyroute2 costs 0.4 s at start. A message is a tree of
attributes: it is sent as bytes, and what the kernel shows later is compared with the same tree.
"""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from mcencrypt.kernel.netlink import NETLINK_NETFILTER, NLM_F_ACK, Message, Netlink, attributes

#: NFNL_SUBSYS_NFTABLES: the upper byte of every message's type.
SUBSYSTEM: Final = 10
NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_IPV4, NFPROTO_IPV6 = 0, 1, 2, 10
#: What kernels answer that do not know a flag, and those that have no nf_tables at all.
NO_SUCH_THING: Final = (errno.EOPNOTSUPP, errno.EINVAL, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT)

NEWTABLE, GETTABLE, DELTABLE = 0, 1, 2
NEWCHAIN, GETCHAIN, DELCHAIN = 3, 4, 5
NEWRULE, GETRULE, DELRULE = 6, 7, 8
NEWSET, GETSET = 9, 10
NEWSETELEM, GETSETELEM = 12, 13
GETGEN = 16

TABLE_NAME, TABLE_FLAGS, TABLE_USERDATA, TABLE_OWNER = 1, 2, 6, 7
TABLE_F_OWNER, TABLE_F_PERSIST = 2, 4
CHAIN_TABLE, CHAIN_NAME, CHAIN_HOOK, CHAIN_POLICY, CHAIN_TYPE = 1, 3, 4, 5, 7
HOOK_HOOKNUM, HOOK_PRIORITY = 1, 2
RULE_TABLE, RULE_CHAIN, RULE_HANDLE, RULE_EXPRESSIONS, RULE_USERDATA = 1, 2, 3, 4, 7
SET_TABLE, SET_NAME, SET_FLAGS, SET_KEY_TYPE, SET_KEY_LEN, SET_ID = 1, 2, 3, 4, 5, 10
SET_CONSTANT = 2
ELEMENTS_TABLE, ELEMENTS_SET, ELEMENTS = 1, 2, 3
ELEMENT_KEY = 1
LIST_ELEMENT = 1
COUNTER_PACKETS = 2

META_MARK, META_IIFNAME, META_OIFNAME, META_L4PROTO = 3, 6, 7, 16
#: The type of a set's keys that nft(8) shows as ports; the kernel does not look at it.
INET_SERVICE: Final = 13

_NLM_F_CREATE, _NLM_F_APPEND = 0x400, 0x800
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_VALUE, _VERDICT = 1, 2
_VERDICT_CODE, _VERDICT_CHAIN = 1, 2
_DROP: Final = 0
_TRANSPORT_HEADER: Final = 2
_EQUAL, _NOT_EQUAL = 0, 1
_NESTED = 0x8000
_GENERATION: Final = 1
_REGISTER: Final = 1
_REGISTER_VERDICT: Final = 0
_COMMENT: Final = 0
_INTERFACE_NAME: Final = 16

#: Attributes: a type and a value each, and a value is bytes or more of them.
Tree = Sequence[tuple[int, "bytes | Tree"]]

_HEADER = struct.Struct(">BBH")
_ATTRIBUTE = struct.Struct("=HH")
_U32 = struct.Struct(">I")
_NATIVE_U32 = struct.Struct("=I")


def encode(tree: Tree) -> bytes:
    """The attributes as they are sent."""
    parts = []
    for kind, value in tree:
        nested = not isinstance(value, bytes)
        data = encode(value) if not isinstance(value, bytes) else value
        header = _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind | (_NESTED if nested else 0))
        parts.append(header + data + bytes(-len(data) % 4))
    return b"".join(parts)


def shows(data: bytes, tree: Tree) -> bool:
    """Whether attributes that the kernel sent have at least what `tree` has; those of one type in the same order."""
    found: dict[int, list[bytes]] = {}
    for kind, value in attributes(data):
        found.setdefault(kind, []).append(value)
    wanted: dict[int, list[bytes | Tree]] = {}
    for kind, goal in tree:
        wanted.setdefault(kind, []).append(goal)
    return all(
        len(found.get(kind, ())) == len(goals)
        and all(
            value == goal if isinstance(goal, bytes) else shows(value, goal)
            for value, goal in zip(found[kind], goals, strict=True)
        )
        for kind, goals in wanted.items()
    )


def string(text: str) -> bytes:
    """A name, as the kernel takes it and shows it."""
    return text.encode() + b"\0"


def u32(number: int) -> bytes:
    """A number in network byte order; negative ones as two's complement."""
    return _U32.pack(number & 0xFFFFFFFF)


def userdata(comment: str) -> bytes:
    """A comment as nft(8) keeps it with tables and rules."""
    text = string(comment)
    return bytes((_COMMENT, len(text))) + text


# -- expressions of rules


def expression(name: str, data: Tree) -> Tree:
    return ((_EXPRESSION_NAME, string(name)), (_EXPRESSION_DATA, data))


def expressions(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Name and data of each expression that the kernel shows of a rule."""
    for _, element in attributes(data):
        parts = dict(attributes(element))
        name = parts.get(_EXPRESSION_NAME, b"").rstrip(b"\0")
        yield name.decode(errors="replace"), parts.get(_EXPRESSION_DATA, b"")


def load_meta(key: int) -> Tree:
    """What `key` says of the packet goes to the register."""
    return expression("meta", ((1, u32(_REGISTER)), (2, u32(key))))


def set_mark() -> Tree:
    """The register becomes the packet's mark."""
    return expression("meta", ((2, u32(META_MARK)), (3, u32(_REGISTER))))


def load_port(destination: bool) -> Tree:
    """The source or destination port goes to the register."""
    place = ((2, u32(_TRANSPORT_HEADER)), (3, u32(2 if destination else 0)), (4, u32(2)))
    return expression("payload", ((1, u32(_REGISTER)), *place))


def keep_bits(mask: int) -> Tree:
    """Only these bits stay in the register."""
    ends = ((4, ((_VALUE, _NATIVE_U32.pack(mask)),)), (5, ((_VALUE, bytes(4)),)))
    return expression("bitwise", ((1, u32(_REGISTER)), (2, u32(_REGISTER)), (3, u32(4)), *ends))


def is_equal(value: bytes) -> Tree:
    """Go on only if the register is this."""
    return _compare(_EQUAL, value)


def is_not_interface(name: str) -> Tree:
    """Go on only if the register is not this name of an interface."""
    return _compare(_NOT_EQUAL, name.encode().ljust(_INTERFACE_NAME, b"\0"))


def is_in(name: str) -> Tree:
    """Go on only if the register is in that set."""
    return expression("lookup", ((1, string(name)), (2, u32(_REGISTER))))


def count() -> Tree:
    """Count the packets that come so far."""
    return expression("counter", ())


def drop() -> Tree:
    verdict = ((2, ((_VERDICT, ((_VERDICT_CODE, u32(_DROP)),)),)),)
    return expression("immediate", ((1, u32(_REGISTER_VERDICT)), *verdict))


def _compare(how: int, value: bytes) -> Tree:
    return expression("cmp", ((1, u32(_REGISTER)), (2, u32(how)), (3, ((_VALUE, value),))))


# -- talking to the kernel


def generation() -> int | None:
    """A number that is another one after each change of nf_tables in the caller's network namespace (base_seq of struct
    nftables_pernet), whoever made it, and in whatever table; None if the kernel does not say.
    """
    try:
        tables = Tables(NFPROTO_UNSPEC)
    except OSError:
        return None
    try:
        return int.from_bytes(dict(attributes(tables.get(GETGEN, ())))[_GENERATION], "big")
    except (OSError, KeyError):
        return None
    finally:
        tables.close()


class Tables:
    """A connection to nf_tables in the network namespace of the caller; a table that is owned is owned by it."""

    def __init__(self, family: int) -> None:
        """Raises OSError."""
        self._netlink = Netlink(NETLINK_NETFILTER)
        self._family = family

    @property
    def port(self) -> int:
        """How the kernel names the owner of a table."""
        return self._netlink.port

    def get(self, kind: int, tree: Tree) -> bytes:
        """The attributes of one thing. Raises OSError: FileNotFoundError if there is none."""
        return self._netlink.request(_type(kind), 0, self._body(tree))[_HEADER.size :]

    def dump(self, kind: int, tree: Tree) -> list[bytes]:
        """The attributes of each thing of a kind that belongs to what `tree` names. Raises OSError."""
        return [one[_HEADER.size :] for one in self._netlink.dump(_type(kind), self._body(tree), whole=True)]

    def change(self, steps: Iterable[tuple[int, Tree]]) -> None:
        """Do all of that at once, or nothing. Raises OSError with what the kernel says of the first that fails."""
        bounds = _HEADER.pack(0, 0, SUBSYSTEM)
        messages = [Message(_type(kind), _flags(kind), self._body(tree)) for kind, tree in steps]
        self._netlink.batch([Message(_BATCH_BEGIN, 0, bounds), *messages, Message(_BATCH_END, 0, bounds)])

    def close(self) -> None:
        self._netlink.close()

    def _body(self, tree: Tree) -> bytes:
        return _HEADER.pack(self._family, 0, 0) + encode(tree)


def _flags(kind: int) -> int:
    return NLM_F_ACK | (0 if kind in (DELTABLE, DELCHAIN, DELRULE) else _NLM_F_CREATE | _NLM_F_APPEND)


def _type(kind: int) -> int:
    return SUBSYSTEM << 8 | kind
