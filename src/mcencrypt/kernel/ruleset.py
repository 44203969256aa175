"""Rule sets as text: what iptables-save shows, what we want, and the change that leads from one to the other.

Nothing here runs a command. Only rules in chains named ``MCENCRYPT-...`` and jumps to them are ours. The others' may
hold anything, bytes that are no UTF-8 and line feeds in a comment included.
"""

from __future__ import annotations

import enum
import itertools
import re
import shlex
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

PREFIX = "MCENCRYPT-"

# What iptables-nft-save shows of a table in which it does not know a rule (xtables-save.c); its exit status is 0.
INCOMPATIBLE = re.compile(r"^# Table [`']([^']+)' is incompatible", re.MULTILINE)
_ESCAPED = re.compile(r"\\.")


class State(enum.Enum):
    """What became of our rules; a larger value is worse."""

    #: All are in place, and the jumps to them come first.
    PRESENT = 0
    #: All are in place, but a rule comes before a jump: packets pass us by if that rule accepts them.
    DISPLACED = 1
    #: They could not be read, which says nothing about whether they are there.
    UNKNOWN = 2
    #: Some are gone or changed: packets may have passed us by.
    MISSING = 3


@dataclass(frozen=True)
class Rule:
    """One rule: its chain, and the rest of its iptables-save line."""

    chain: str
    spec: str

    @property
    def ours(self) -> bool:
        return self.chain.startswith(PREFIX)

    @property
    def is_jump(self) -> bool:
        """True for a rule in somebody else's chain that leads to one of ours."""
        # The plain search saves taking others' rules apart, of which there can be many.
        return PREFIX in self.spec and not self.ours and self.value("-j", "-g").startswith(PREFIX)

    @property
    def comment(self) -> str:
        return self.value("--comment")

    def value(self, *options: str) -> str:
        """The word after the first of these options, or "" without them."""
        words = _words(self.spec)
        return next((after for word, after in itertools.pairwise(words) if word in options), "")

    def same(self, other: Rule) -> bool:
        return self.chain == other.chain and (self.spec == other.spec or _words(self.spec) == _words(other.spec))


@dataclass(frozen=True)
class Table:
    """One table: the names of the chains that are declared in it, and its rules in order."""

    chains: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    def jumps(self) -> list[Rule]:
        return [rule for rule in self.rules if rule.is_jump]

    def own_rules(self) -> list[Rule]:
        return [rule for rule in self.rules if rule.ours]

    def own_chains(self) -> list[str]:
        return [chain for chain in self.chains if chain.startswith(PREFIX)]

    def first(self, chain: str) -> Rule | None:
        return next((rule for rule in self.rules if rule.chain == chain), None)


@dataclass(frozen=True)
class Ruleset:
    """Tables by name."""

    tables: Mapping[str, Table] = field(default_factory=dict)
    #: Tables that are there, and whose rules could not be read.
    unread: frozenset[str] = frozenset()
    #: Those of them that iptables-nft does not show because it does not know all that is in them.
    hidden: frozenset[str] = frozenset()

    @staticmethod
    def parse(text: str) -> Ruleset:
        """Read iptables-save output, or iptables-restore input (``:CHAIN``, ``-A``, ``-I CHAIN 1``).

        A table that does not end is one that could not be read.
        """
        tables: dict[str, Table] = {}
        unread: set[str] = set()
        hidden: set[str] = set()
        name: str | None = None
        chains: list[str] = []
        rules: list[Rule] = []
        for line in _lines(text):
            if line.startswith("*"):
                unread.update({name} if name else ())
                name, chains, rules = line[1:].strip(), [], []
            elif line.startswith(":"):
                chains.append(line[1:].split(" ", 1)[0])
            elif line.startswith("-A "):
                _, chain, spec = _fields(line, 2)
                rules.append(Rule(chain, spec))
            elif line.startswith("-I "):
                _, chain, _, spec = _fields(line, 3)
                rules.append(Rule(chain, spec))
            elif line.rstrip() == "COMMIT" and name is not None:
                tables[name], name = Table(tuple(chains), tuple(rules)), None
            elif found := INCOMPATIBLE.match(line):
                hidden.add(found[1])
        unread.update({name} if name else ())
        return Ruleset(tables, frozenset(unread | hidden), frozenset(hidden))

    def ours(self) -> Ruleset:
        """This rule set without what belongs to others."""
        return Ruleset(
            {
                name: Table(tuple(table.own_chains()), tuple(r for r in table.rules if r.ours or r.is_jump))
                for name, table in self.tables.items()
                if table.own_chains()
            },
            self.unread,
            self.hidden,
        )

    def same_shape(self, wanted: Ruleset) -> bool:
        """True if our rules are these as far as their comments tell, with the jumps first.

        For a kernel or iptables that accepted our text and shows it in other words.
        """
        return all(
            [(rule.chain, rule.comment) for rule in table.own_rules()]
            == [(rule.chain, rule.comment) for rule in goal.own_rules()]
            and [(jump.chain, jump.comment) for jump in table.jumps()]
            == [(jump.chain, jump.comment) for jump in goal.jumps()]
            and all(table.first(jump.chain) == jump for jump in table.jumps())
            for goal, table in ((goal, self.tables.get(name, Table())) for name, goal in wanted.tables.items())
        )


def worst(states: Iterable[State]) -> State:
    """PRESENT if there are none."""
    return max(states, key=lambda state: state.value, default=State.PRESENT)


def judge(saved: Ruleset, wanted: Ruleset, shown: Ruleset | None = None) -> State:
    """Compare what iptables-save shows with what we want, or with what it showed for it earlier (`shown`)."""
    return worst(
        State.UNKNOWN if name in saved.unread else judge_table(saved.tables.get(name, Table()), goal)
        for name, goal in (shown or wanted).tables.items()
    )


def judge_table(table: Table, goal: Table) -> State:
    """`judge` for one table that could be read."""
    if not _all_same(table.own_rules(), goal.own_rules()):
        return State.MISSING
    return _judge_jumps(table, goal, Rule.same)


def judge_shape(table: Table, goal: Table) -> State:
    """`judge_table` where only chains, comments and targets could be read, each version of iptables in its own way."""
    if [rule.chain for rule in table.own_rules()] != [rule.chain for rule in goal.own_rules()]:
        return State.MISSING
    return _judge_jumps(table, goal, lambda rule, jump: rule.value("-j", "-g") == jump.value("-j", "-g"))


def _judge_jumps(table: Table, goal: Table, same: Callable[[Rule, Rule], bool]) -> State:
    state = State.PRESENT
    for jump in goal.jumps():
        there = [same(rule, jump) for rule in table.rules if rule.chain == jump.chain]
        if not any(there):
            return State.MISSING
        if not there[0]:
            state = State.DISPLACED
    return state


def change(saved: Ruleset, wanted: Ruleset) -> str:
    """Input of ``iptables-restore --noflush`` that turns `saved` into `wanted` (empty: all of ours goes).

    "" if nothing is to be done. Tables that could not be read are left out. Each table is one transaction: where rules
    replace rules, a packet meets either the old or the new ones. A jump that is right and first stays; any other jump
    to our chains goes.
    """
    lines: list[str] = []
    for name in dict.fromkeys([*wanted.tables, *saved.tables]):
        if name in saved.unread:
            continue
        goal = wanted.tables.get(name, Table())
        table = saved.tables.get(name, Table())
        chains = list(dict.fromkeys([*goal.own_chains(), *table.own_chains()]))
        # Deleting by specification takes the first match, so among equal jumps none can be kept.
        keep = _all_same(table.jumps(), goal.jumps()) and all(
            (first := table.first(jump.chain)) and first.same(jump) for jump in goal.jumps()
        )
        if (
            keep
            and sorted(table.own_chains()) == sorted(goal.own_chains())
            and _all_same(table.own_rules(), goal.own_rules())
        ):
            continue
        lines.append(f"*{name}")
        lines += [f":{chain} - [0:0]" for chain in chains]
        if not keep:
            lines += [f"-D {jump.chain} {jump.spec}" for jump in table.jumps()]
            lines += [f"-I {jump.chain} 1 {jump.spec}" for jump in goal.jumps()]
        lines += [f"-A {rule.chain} {rule.spec}" for rule in goal.own_rules()]
        lines += [f"-X {chain}" for chain in chains if chain not in goal.chains]
        lines.append("COMMIT")
    return "".join(f"{line}\n" for line in lines)


def change_shape(name: str, table: Table, goal: Table) -> str:
    """`change` for one table of which only the shape could be read. Other jumps than the first of their chain stay."""
    lines = [f"*{name}", *(f":{chain} - [0:0]" for chain in goal.own_chains())]
    for jump in goal.jumps():
        first = table.first(jump.chain)
        if first is None or first.value("-j", "-g") != jump.value("-j", "-g"):
            lines.append(f"-I {jump.chain} 1 {jump.spec}")
    lines += [f"-A {rule.chain} {rule.spec}" for rule in goal.own_rules()]
    return "".join(f"{line}\n" for line in [*lines, "COMMIT"])


def _all_same(some: list[Rule], others: list[Rule]) -> bool:
    return len(some) == len(others) and all(map(Rule.same, some, others))


def _lines(text: str) -> Iterator[str]:
    """The lines of a rule set. Inside quotes a line feed belongs to the line, and nothing else ends one."""
    parts: list[str] = []
    quoted = False
    for line in text.split("\n"):
        parts.append(line)
        if quoted or not line.startswith("#"):
            quoted ^= bool(_ESCAPED.sub("", line).count('"') % 2)
        if not quoted:
            yield "\n".join(parts)
            parts.clear()


def _fields(line: str, count: int) -> list[str]:
    """That many words of a line and the rest of it, which may be nothing: a rule may match all and do nothing."""
    words = line.split(" ", count)
    return words + [""] * (count + 1 - len(words))


def _words(spec: str) -> list[str]:
    try:
        return shlex.split(spec)
    except ValueError:
        return spec.split()
