"""The fence, and whose use of packets' marks gets in its way."""

from __future__ import annotations

import re
from collections.abc import Iterator

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, ok, problem, warning
from mcencrypt.doctor.foreign import concerns
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.fence import TABLE
from mcencrypt.kernel.ruleset import Rule, Ruleset, Table

_NAME = f"nft table inet {TABLE}"
_ALL = 0xFFFFFFFF
# Options of marks that take VALUE or VALUE/MASK.
_MARK_OPTIONS = ("--mark", "--set-mark", "--set-xmark", "--or-mark", "--xor-mark")
_RULE_MARK = re.compile(r"\bfwmark (0x[0-9a-f]+)(?:/(0x[0-9a-f]+))?")
_NFT_MARK = re.compile(r"\bmeta mark\b.*?(0x[0-9a-f]+)")


def check_fence(case: Case) -> Iterator[Finding]:
    """Does it stand, and who can take it away."""
    status = case.status
    if status is None:
        try:
            there = case.machine.has_fence()
        except OperatorError:
            yield note("fence.unseen", "whether there is a fence cannot be seen by this user", "run this as root")
            return
        if there:
            yield problem(
                "fence.no-daemon",
                f"the fence ({_NAME}) is in place and no daemon answers: every packet on the P2P ports is dropped",
                "start it with `mcencrypt on` or `systemctl start mcencrypt`; or take the fence away: `mcencrypt off`",
            )
        return
    gate = status["gate"]
    if gate["trouble"]:
        yield problem("fence.trouble", f"the daemon cannot watch rules and fence: {gate['trouble']}", "see its log")
    if gate["fence_lost"]:
        yield warning(
            "fence.lost",
            f"another program removed the fence {gate['fence_lost']} times; it was put back",
            "the log says when; have that program leave nftables' other tables alone",
        )
    if gate["fence"] == "none":
        yield warning(
            "fence.none",
            f"there is no fence here: {(gate['no_fence'] or '').partition(':')[0]}",
            "rules that another program removes are noticed within a second; until then packets leave as they are. "
            "A kernel with nf_tables (CONFIG_NF_TABLES_INET) has one",
        )
    elif gate["fence"] == "broken":
        yield problem("fence.broken", f"the fence ({_NAME}) is not in place", "see the daemon's log")
    elif gate["fence"] == "unseen":
        yield problem(
            "fence.hidden",
            f"the kernel does not show the daemon whether the fence ({_NAME}) is in place",
            "see the daemon's log; `mcencrypt off` and `mcencrypt on` make it anew",
        )
    elif gate["fence"] == "standing":
        yield note(
            "fence.standing",
            f"the fence ({_NAME}) is in place; `nft flush ruleset`, with which /etc/nftables.conf begins, removes it",
            "the daemon puts it back; kernels from 6.9 on let nobody else remove it",
        )
    elif gate["fence"] == "owned":
        yield ok("fence.owned", f"the fence ({_NAME}) is in place, and only the daemon can remove it")


def check_marks(case: Case) -> Iterator[Finding]:
    """Others that use the bit that opens the fence."""
    bit = case.config.fence_mark
    found = [*_iptables_uses(case, bit), *_routing_uses(case, bit), *_nft_uses(case, bit)]
    if found:
        yield warning(
            "fence.mark",
            f"another program uses bit {bit:#x} of marks, which mcencrypt clears on the P2P ports: {found[0]}",
            "set fence_mark to a bit that nobody uses, 0x4000000 for instance, and restart the daemon",
        )


def check_rules_behind(case: Case) -> Iterator[Finding]:
    """Rules that come behind ours where packets that come back from the queue do not pass any more."""
    try:
        saved = case.machine.rules()
    except OperatorError:
        return
    for one in saved:
        ruleset = Ruleset.parse(one.text)
        for name, chain in (("raw", "OUTPUT"), ("mangle", "INPUT")):
            for rule in _behind(ruleset.tables.get(name, Table()), chain):
                kind = concerns(rule, case.ports)
                if not kind or not rule.value("-j", "-g"):
                    continue
                text = f"a rule behind ours does not see P2P packets: {one.family} {name}: -A {rule.chain} {rule.spec}"
                advice = "what it does for them, do in another table (mangle OUTPUT, filter INPUT)"
                yield (
                    warning("foreign.behind", text, advice) if kind == "ports" else note("foreign.behind", text, advice)
                )


def _behind(table: Table, chain: str) -> list[Rule]:
    rules = [rule for rule in table.rules if rule.chain == chain]
    first = next((at for at, rule in enumerate(rules) if rule.is_jump), len(rules))
    return [rule for rule in rules[first:] if not rule.is_jump]


def _iptables_uses(case: Case, bit: int) -> Iterator[str]:
    try:
        saved = case.machine.rules()
    except OperatorError:
        return
    for one in saved:
        for name, table in Ruleset.parse(one.text).tables.items():
            for rule in table.rules:
                if not rule.ours and any(_uses(rule.value(option), bit) for option in _MARK_OPTIONS):
                    yield f"{one.family} {name}: -A {rule.chain} {rule.spec}"


def _uses(text: str, bit: int) -> bool:
    """Whether VALUE or VALUE/MASK has that bit set; a rule for all 32 bits at once does not mean ours."""
    value, _, mask = text.partition("/")
    try:
        return bool(int(value, 0) & (int(mask, 0) if mask else _ALL) & bit)
    except ValueError:
        return False


def _routing_uses(case: Case, bit: int) -> Iterator[str]:
    for family in ("-4", "-6"):
        output = case.machine.run("ip", family, "rule", "show")
        for line in output.text.splitlines() if output.status == 0 else ():
            match = _RULE_MARK.search(line)
            if match and _uses(f"{match[1]}/{match[2] or hex(_ALL)}", bit):
                yield f"ip {family} rule: {' '.join(line.split())}"


def _nft_uses(case: Case, bit: int) -> Iterator[str]:
    output = case.machine.run("nft", "list", "ruleset")
    table = ""
    for line in output.text.splitlines() if output.status == 0 else ():
        line = line.strip()
        if line.startswith("table "):
            table = " ".join(line.split()[:3])  # behind it: whose it is
        elif table != f"table inet {TABLE}" and not re.match(r"table ip6? (raw|mangle|nat|filter|security)$", table):
            match = _NFT_MARK.search(line)
            if match and int(match[1], 16) & bit and int(match[1], 16) != _ALL ^ bit:
                yield f"{table}: {line}"
