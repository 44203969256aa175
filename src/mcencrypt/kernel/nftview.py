"""The rules of iptables-nft as the kernel has them, for tables that iptables-save does not show.

One rule made with nft itself that iptables does not know is enough, and all of its table is "incompatible, use 'nft'
tool". Of each rule this shows the chain, the comment and where it leads: enough to know ours, wherever they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from mcencrypt.kernel import nftables
from mcencrypt.kernel.iptables import V4
from mcencrypt.kernel.netlink import attributes
from mcencrypt.kernel.nftables import string
from mcencrypt.kernel.ruleset import PREFIX, Rule, Table

# Expressions: an immediate value with a verdict, and the matches and targets of x_tables (linux/netfilter/nf_tables.h).
_IMMEDIATE_DATA, _DATA_VERDICT, _VERDICT_CHAIN = 2, 2, 2
_MATCH_NAME, _MATCH_INFO, _TARGET_NAME = 1, 3, 1


class View:
    """The tables of one IP version. Every call raises OSError."""

    def __init__(self, family: str) -> None:
        self._tables = nftables.Tables(nftables.NFPROTO_IPV4 if family == V4 else nftables.NFPROTO_IPV6)

    def has(self, table: str) -> bool:
        """Whether there is that table at all; without nf_tables in the kernel there is none."""
        try:
            self._tables.get(nftables.GETTABLE, ((nftables.TABLE_NAME, string(table)),))
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in nftables.NO_SUCH_THING:
                return False
            raise
        return True

    def read(self, table: str) -> Table:
        """Its chains, and its rules with comment and target only."""
        return Table(tuple(self._chains(table)), tuple(rule for rule, _ in self._rules(table)))

    def keep_first_jumps(self, table: str) -> None:
        """Delete the rules that lead to chains of ours, all at once, but for those that come first in their chain."""
        steps: list[tuple[int, nftables.Tree]] = []
        seen: set[str] = set()
        for rule, handle in self._rules(table):
            if rule.is_jump and rule.chain in seen:
                steps.append((nftables.DELRULE, (*_of_rule(table, rule.chain), (nftables.RULE_HANDLE, handle))))
            seen.add(rule.chain)
        if steps:
            self._tables.change(steps)

    def remove(self, table: str) -> None:
        """Delete chains of ours and the rules that lead to them, all at once."""
        steps: list[tuple[int, nftables.Tree]] = [
            (nftables.DELRULE, (*_of_rule(table, rule.chain), (nftables.RULE_HANDLE, handle)))
            for rule, handle in self._rules(table)
            if rule.is_jump
        ]
        ours = [chain for chain in self._chains(table) if chain.startswith(PREFIX)]
        steps += [(nftables.DELRULE, _of_rule(table, chain)) for chain in ours]
        of_table = (nftables.CHAIN_TABLE, string(table))
        steps += [(nftables.DELCHAIN, (of_table, (nftables.CHAIN_NAME, string(chain)))) for chain in ours]
        if steps:
            self._tables.change(steps)

    def close(self) -> None:
        self._tables.close()

    def _chains(self, table: str) -> Iterator[str]:
        for found in self._tables.dump(nftables.GETCHAIN, ()):
            named = dict(attributes(found))
            if named.get(nftables.CHAIN_TABLE) == string(table):
                yield _text(named[nftables.CHAIN_NAME])

    def _rules(self, table: str) -> Iterator[tuple[Rule, bytes]]:
        """Each rule and its handle, chain by chain in order."""
        for found in self._tables.dump(nftables.GETRULE, ((nftables.RULE_TABLE, string(table)),)):
            parts = dict(attributes(found))
            if parts.get(nftables.RULE_TABLE) == string(table):
                spec = _spec(parts.get(nftables.RULE_EXPRESSIONS, b""))
                yield Rule(_text(parts[nftables.RULE_CHAIN]), spec), parts[nftables.RULE_HANDLE]


def _of_rule(table: str, chain: str) -> nftables.Tree:
    return ((nftables.RULE_TABLE, string(table)), (nftables.RULE_CHAIN, string(chain)))


def _spec(expressions: bytes) -> str:
    """Comment and target, as iptables-save would show them."""
    words = []
    for name, data in nftables.expressions(expressions):
        parts = dict(attributes(data))
        if name == "match" and _text(parts.get(_MATCH_NAME, b"")) == "comment":
            comment = _text(parts.get(_MATCH_INFO, b"")).replace("\\", "\\\\").replace('"', '\\"')
            words.append(f'-m comment --comment "{comment}"')
        elif name == "target":
            words.append(f"-j {_text(parts.get(_TARGET_NAME, b''))}")
        elif name == "immediate":
            verdict = dict(attributes(dict(attributes(parts.get(_IMMEDIATE_DATA, b""))).get(_DATA_VERDICT, b"")))
            if chain := verdict.get(_VERDICT_CHAIN):
                words.append(f"-j {_text(chain)}")
    return " ".join(words)


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode(errors="surrogateescape")
