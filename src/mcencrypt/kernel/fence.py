"""The fence: a table of nf_tables that lets a P2P packet pass only if it came through our queue.

Rules in iptables can be flushed by anybody, and a watch always comes late. So the last word is not theirs. The iptables
rules set a bit of the packet's mark directly before they queue it. Four chains of the table ``inet mcencrypt``, around
those of iptables, see to the rest, for the same ports and everything that is not on lo:

    output  -310  clear the bit    iptables: raw OUTPUT (-300)     -290  drop what lacks it, clear it
    input   -160  clear the bit    iptables: mangle INPUT (-150)   -140  drop what lacks it, clear it

The first of each pair is needed because sockets and other rules can have set the bit before (tcp_fwmark_accept,
SO_MARK, CONNMARK). The bit is on a packet only between the two, so nobody's routing or rules see it.

The table belongs to the process that made it and outlives it (flags owner and persist, Linux 6.9): nobody else can
change it, not even by flushing everything; once its process has ended the next one takes it over. Where the kernel
lacks that the table is like any other.
"""

from __future__ import annotations

import enum
import errno
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from mcencrypt.errors import OperatorError
from mcencrypt.kernel import nftables
from mcencrypt.kernel.netlink import attributes
from mcencrypt.kernel.nftables import Tree, string, u32

TABLE: Final = "mcencrypt"
#: Not used by kube-proxy and docker (0x4000, 0x8000), Calico, Cilium (the high half), mwan3 (0x3f00) or AWS (0x80).
DEFAULT_MARK: Final = 0x20

_SET: Final = "ports"
_COMMENT: Final = "mcencrypt: P2P packets pass only through its queue; `mcencrypt off` takes this away"
_ALL: Final = 0xFFFFFFFF
_LOCAL_IN, _LOCAL_OUT = 1, 3
_ACCEPT: Final = 1
_TCP: Final = bytes((6,))
#: Ports in one message: an attribute is at most 64 KiB long.
_ELEMENTS_AT_ONCE: Final = 1000
_ATTEMPTS: Final = 5


class _Chain(NamedTuple):
    name: str
    hook: int
    priority: int
    #: Which interface is looked at: a key of `nftables.load_meta`.
    interface: int
    #: Whether it drops what lacks the bit, before it clears it.
    gate: bool


_CHAINS: Final = (
    _Chain("output-clear", _LOCAL_OUT, -310, nftables.META_OIFNAME, False),
    _Chain("output-gate", _LOCAL_OUT, -290, nftables.META_OIFNAME, True),
    _Chain("input-clear", _LOCAL_IN, -160, nftables.META_IIFNAME, False),
    _Chain("input-gate", _LOCAL_IN, -140, nftables.META_IIFNAME, True),
)


class Standing(enum.Enum):
    """What is known of the fence; a larger value is worse."""

    #: It is in place, for these ports and this bit.
    WHOLE = 0
    #: The kernel could not be asked.
    UNKNOWN = 1
    #: It is missing, or not what it should be.
    BROKEN = 2


class NoFenceError(OperatorError):
    """This kernel cannot have one."""


class Fence:
    """The fence of the network namespace that this object was made in.

    It holds what the kernel calls the table's owner: the table can be changed through this object until it is closed.
    """

    def __init__(self, ports: Sequence[int], mark: int = DEFAULT_MARK) -> None:
        """`mark`: the one bit that is used. Raises nothing: what the kernel lacks shows when it is asked for."""
        self.ports = tuple(ports)
        self.mark = mark
        #: The ports for which this object has made it, and those for which nobody else can have changed it since.
        self._made: tuple[int, ...] | None = None
        self._own: tuple[int, ...] | None = None
        try:
            self._connection: nftables.Tables | OSError = nftables.Tables(nftables.NFPROTO_INET)
        except OSError as error:
            self._connection = error

    @property
    def _tables(self) -> nftables.Tables:
        if isinstance(self._connection, OSError):
            raise self._connection
        return self._connection

    def install(self) -> None:
        """Put it up, or put what is there right, at one instant; taken over from a process that has ended.

        What this object has made and is whole is left as it is, with its counters.
        Raises OperatorError; NoFenceError if the kernel has no nf_tables.
        """
        if self._made == self.ports and (self._own is None or self.is_ours) and self.look() is Standing.WHOLE:
            return
        for attempt in range(_ATTEMPTS):
            flags = nftables.TABLE_F_OWNER | nftables.TABLE_F_PERSIST
            try:
                try:
                    self._replace(flags)
                except OSError as error:
                    if error.errno not in nftables.NO_SUCH_THING:
                        raise
                    self._replace(0)
            except OSError as error:
                # Somebody took the table away, or made it, between our look and our change; but a kernel that lacks a
                # part says the same as the first.
                again = error.errno in (errno.ENOENT, errno.EEXIST) and attempt < _ATTEMPTS - 1
                if not again:
                    raise self._explained("made", error) from None
            else:
                self._made = self.ports
                self._own = self.ports if self.is_ours else None
                return

    def with_ports(self, ports: Sequence[int]) -> None:
        """Other ports from the next `install` on."""
        self.ports = tuple(ports)

    def remove(self) -> None:
        """Take it away, if it is there. Raises OperatorError."""
        self._made = self._own = None
        try:
            self._tables.change([(nftables.DELTABLE, ((nftables.TABLE_NAME, string(TABLE)),))])
        except FileNotFoundError:
            return
        except OSError as error:
            if error.errno in nftables.NO_SUCH_THING:
                return  # no nf_tables, so no fence
            raise self._explained("removed", error) from None

    def is_there(self) -> bool:
        """Whether there is one, whole or not. Raises OperatorError if that cannot be told."""
        try:
            self._table()
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in nftables.NO_SUCH_THING:
                return False  # no nf_tables, so no fence
            raise self._explained("looked at", error) from None
        return True

    def look(self) -> Standing:
        """Whether all of it is in place. Takes well under a millisecond; raises nothing."""
        try:
            return Standing.WHOLE if self._is_whole() else Standing.BROKEN
        except FileNotFoundError:
            return Standing.BROKEN
        except OSError:
            return Standing.UNKNOWN

    def owner(self) -> int | None:
        """The netlink port of the process that alone can change it; None if everybody can, or there is none.

        Raises OSError.
        """
        try:
            return self._owner_of(dict(attributes(self._table())))
        except FileNotFoundError:
            return None

    @staticmethod
    def _owner_of(table: Mapping[int, bytes]) -> int | None:
        owner = table.get(nftables.TABLE_OWNER)
        return int.from_bytes(owner, "big") if owner else None

    @property
    def is_ours(self) -> bool:
        """Whether it is known that nobody else can change it; raises nothing."""
        try:
            return self.owner() == self._tables.port
        except OSError:
            return False

    def dropped(self) -> int:
        """Packets that it has dropped since it was put up. Raises OSError."""
        return sum(
            int.from_bytes(dict(attributes(data)).get(nftables.COUNTER_PACKETS, b""), "big")
            for chain in _CHAINS
            for rule in self._rules(chain.name)
            for name, data in nftables.expressions(dict(attributes(rule)).get(nftables.RULE_EXPRESSIONS, b""))
            if name == "counter"
        )

    def close(self) -> None:
        """From now on others can change it."""
        if isinstance(self._connection, nftables.Tables):
            self._connection.close()

    def _explained(self, what: str, error: OSError) -> OperatorError:
        if error.errno == errno.EPERM:
            try:
                owner = self.owner()
                foreign = owner not in (None, self._tables.port)
            except OSError:
                foreign = False
            if foreign:
                return _cannot(what, f"it belongs to another process (netlink port {owner}): end that one, or use it")
            return _cannot(what, "run as root, or with CAP_NET_ADMIN")
        if error.errno in (*nftables.NO_SUCH_THING, errno.ENOENT):
            return NoFenceError(
                f"the kernel cannot have the fence ({error.strerror}): rules that others remove are only watched; "
                "load nf_tables, or use a kernel with CONFIG_NF_TABLES_INET"
            )
        return _cannot(what, f"{error.strerror}")

    # -- the kernel's side

    def _replace(self, flags: int) -> None:
        table = ((nftables.TABLE_NAME, string(TABLE)),)
        steps: list[tuple[int, Tree]] = []
        try:
            self._table()
        except FileNotFoundError:
            pass
        else:
            steps.append((nftables.DELTABLE, table))
        more = ((nftables.TABLE_FLAGS, u32(flags)), (nftables.TABLE_USERDATA, nftables.userdata(_COMMENT)))
        self._tables.change([*steps, (nftables.NEWTABLE, (*table, *more)), *self._contents()])

    def _contents(self) -> Iterator[tuple[int, Tree]]:
        yield nftables.NEWSET, (*_set(), (nftables.SET_ID, u32(1)))
        for at in range(0, len(self.ports), _ELEMENTS_AT_ONCE):
            listed = tuple(
                (nftables.LIST_ELEMENT, ((nftables.ELEMENT_KEY, ((1, port.to_bytes(2, "big")),)),))
                for port in self.ports[at : at + _ELEMENTS_AT_ONCE]
            )
            yield nftables.NEWSETELEM, (*_of_set(), (nftables.ELEMENTS, listed))
        for chain in _CHAINS:
            yield nftables.NEWCHAIN, _chain(chain)
            for rule in self._wanted(chain):
                of = ((nftables.RULE_TABLE, string(TABLE)), (nftables.RULE_CHAIN, string(chain.name)))
                yield nftables.NEWRULE, (*of, (nftables.RULE_EXPRESSIONS, rule))

    def _wanted(self, chain: _Chain) -> list[Tree]:
        """The expressions of its rules, in order."""
        rules: list[Tree] = []
        lacks = (nftables.load_meta(nftables.META_MARK), nftables.keep_bits(self.mark), nftables.is_equal(bytes(4)))
        clear = (nftables.load_meta(nftables.META_MARK), nftables.keep_bits(_ALL ^ self.mark), nftables.set_mark())
        for does in ((*lacks, nftables.count(), nftables.drop()), clear) if chain.gate else (clear,):
            for destination in (False, True):
                matches = (
                    nftables.load_meta(nftables.META_L4PROTO),
                    nftables.is_equal(_TCP),
                    nftables.load_meta(chain.interface),
                    nftables.is_not_interface("lo"),
                    nftables.load_port(destination),
                    nftables.is_in(_SET),
                )
                rules.append(tuple((nftables.LIST_ELEMENT, one) for one in (*matches, *does)))
        return rules

    def _is_whole(self) -> bool:
        table = dict(attributes(self._table()))
        if self._own == self.ports and self._owner_of(table) == self._tables.port:
            return True
        there = {}
        for found in self._tables.dump(nftables.GETCHAIN, ()):
            named = dict(attributes(found))
            if named.get(nftables.CHAIN_TABLE) == string(TABLE):
                there[named[nftables.CHAIN_NAME]] = found
        if set(there) != {string(chain.name) for chain in _CHAINS}:
            return False
        for chain in _CHAINS:
            rules, wanted = self._rules(chain.name), self._wanted(chain)
            if not nftables.shows(there[string(chain.name)], _chain(chain)) or len(rules) != len(wanted):
                return False
            for rule, goal in zip(rules, wanted, strict=True):
                if not nftables.shows(rule, ((nftables.RULE_EXPRESSIONS, goal),)):
                    return False
        return self._ports() == set(self.ports)

    def _table(self) -> bytes:
        return self._tables.get(nftables.GETTABLE, ((nftables.TABLE_NAME, string(TABLE)),))

    def _rules(self, chain: str) -> list[bytes]:
        of = ((nftables.RULE_TABLE, string(TABLE)), (nftables.RULE_CHAIN, string(chain)))
        found = self._tables.dump(nftables.GETRULE, of)
        # kernels that do not filter dumps show the rules of everybody
        return [rule for rule in found if nftables.shows(rule, of)]

    def _ports(self) -> set[int]:
        ports = set()
        for message in self._tables.dump(nftables.GETSETELEM, _of_set()):
            for kind, value in attributes(message):
                if kind == nftables.ELEMENTS:
                    for _, element in attributes(value):
                        key = dict(attributes(dict(attributes(element)).get(nftables.ELEMENT_KEY, b"")))
                        ports.add(int.from_bytes(key.get(1, b""), "big"))
        return ports


def _set() -> Tree:
    named = ((nftables.SET_TABLE, string(TABLE)), (nftables.SET_NAME, string(_SET)))
    kind = ((nftables.SET_KEY_TYPE, u32(nftables.INET_SERVICE)), (nftables.SET_KEY_LEN, u32(2)))
    return (*named, (nftables.SET_FLAGS, u32(nftables.SET_CONSTANT)), *kind)


def _of_set() -> Tree:
    return ((nftables.ELEMENTS_TABLE, string(TABLE)), (nftables.ELEMENTS_SET, string(_SET)))


def _chain(chain: _Chain) -> Tree:
    hook = ((nftables.HOOK_HOOKNUM, u32(chain.hook)), (nftables.HOOK_PRIORITY, u32(chain.priority)))
    named = ((nftables.CHAIN_TABLE, string(TABLE)), (nftables.CHAIN_NAME, string(chain.name)))
    kind = ((nftables.CHAIN_TYPE, string("filter")), (nftables.CHAIN_POLICY, u32(_ACCEPT)))
    return (*named, (nftables.CHAIN_HOOK, hook), *kind)


def _cannot(what: str, why: str) -> OperatorError:
    return OperatorError(f"the fence (nft table inet {TABLE}) cannot be {what}: {why}")
