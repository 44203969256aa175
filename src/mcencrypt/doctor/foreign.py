"""Other programs' packet rules that stand in the way of the P2P ports."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, Severity, note, warning
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.ruleset import Rule, Ruleset, Table

_PORT_OPTIONS = ("--dport", "--sport", "--dports", "--sports", "--ports", "--destination-port", "--source-port")
_NARROWING = (
    "-s", "-d", "--source", "--destination", "--uid-owner", "--gid-owner", "--mark", "--match-set", "--src-range",
    "--dst-range", "--mac-source", "--dst-type", "--src-type", "--string", "--limit",
)  # fmt: skip
# Target: (id, how bad, what it does, what to do).
_TARGETS = {
    "NFQUEUE": (
        "foreign.nfqueue", Severity.PROBLEM, "sends packets to another queue",
        "take the P2P ports out of that program (an intrusion prevention system?): one of the two would not see "
        "the packets",
    ),
    "TPROXY": (
        "foreign.proxy", Severity.PROBLEM, "leads packets to a transparent proxy, which ends TCP",
        "take the P2P ports out of the proxy",
    ),
    "SYNPROXY": (
        "foreign.synproxy", Severity.PROBLEM, "puts a SYN proxy in front, which answers SYNs by itself",
        "take the P2P ports out of it: the handshake is in the SYN",
    ),
    "REDIRECT": (
        "foreign.redirect", Severity.WARNING, "redirects connections to another port of this host",
        "right if multichaind listens there and that port is configured too; if a proxy does (a service mesh's, "
        "for instance), take the P2P ports out of it",
    ),
    "DROP": ("foreign.drop", Severity.WARNING, "drops packets", "peers that it matches cannot connect"),
    "REJECT": (
        "foreign.drop", Severity.WARNING, "rejects packets", "peers that it matches cannot connect",
    ),
    "TARPIT": ("foreign.drop", Severity.WARNING, "holds connections", "remove it for the P2P ports"),
    "TCPOPTSTRIP": (
        "foreign.options", Severity.WARNING, "strips TCP options", "without SACK losses are slow: except the P2P ports",
    ),
}  # fmt: skip
_PROGRAMS = {
    "firewalld": ("firewalld", "it rewrites tables when it reloads; mcencrypt puts its rules back within seconds"),
    "fail2ban-server": ("fail2ban", "bans by it drop peers before mcencrypt sees them: `fail2ban-client status`"),
    "suricata": ("Suricata", "in inline mode it reads a netfilter queue; keep the P2P ports out of it"),
    "snort": ("Snort", "in inline mode it reads a netfilter queue; keep the P2P ports out of it"),
}
_CHAINS = {"ufw-": "ufw", "f2b-": "fail2ban", "KUBE-": "kube-proxy", "cali-": "Calico", "ISTIO_": "Istio"}


def concerns(rule: Rule, ports: Sequence[int]) -> str:
    """Whether a rule matches packets on these ports: "ports" if it names one, "all" if it names none and nothing
    else either, else ""."""
    words = _words(rule)
    if any(words[at : at + 2] in (["-i", "lo"], ["-o", "lo"]) and words[at - 1] != "!" for at in range(len(words))):
        return ""
    protocol = _after(words, "-p")
    if protocol not in ("", "tcp", "6", "all"):
        return ""
    named, matched = False, False
    for at, word in enumerate(words[:-1]):
        if word in _PORT_OPTIONS:
            named = True
            hit = any(_in_range(port, part) for port in ports for part in words[at + 1].split(","))
            matched |= hit != (words[at - 1] == "!")
    if named:
        return "ports" if matched else ""
    # Replies, invalid packets, single hosts: not what stands in the way of a port.
    narrow = any(word in _NARROWING or word in ("--ctstate", "--state", "--tcp-flags", "--icmp-type") for word in words)
    return "" if narrow else "all"


def check_foreign_rules(case: Case) -> Iterator[Finding]:
    """Rules that drop, redirect or queue our ports."""
    try:
        saved = case.machine.rules()
    except OperatorError:
        return
    ports = case.ports
    for one in saved:
        ruleset = Ruleset.parse(one.text)
        for name, table in ruleset.tables.items():
            yield from _check_table(name, table, one.family, ports)
        filters = ruleset.tables.get("filter", Table())
        if ports and _drops_the_rest(one.text, filters) and not _lets_in(filters, ports):
            yield note(
                f"foreign.policy-{one.family}",
                f"{one.family}: the filter drops what no rule accepts in INPUT, and no rule accepts {_list(ports)}",
                "peers cannot dial this node (it can dial them): accept the P2P ports if they should",
            )
    yield from _check_native(case)


def _check_table(name: str, table: Table, family: str, ports: Sequence[int]) -> Iterator[Finding]:
    for rule in table.rules:
        if rule.ours or rule.is_jump:
            continue
        target = rule.value("-j", "-g")
        known = _TARGETS.get(target)
        kind = concerns(rule, ports) if known or target == "DNAT" else ""
        if not kind:
            continue
        where = f"{family} {name}: -A {rule.chain} {rule.spec}"
        if known is None:
            yield _published(rule, where)
        elif kind == "ports" or target in ("NFQUEUE", "TPROXY", "REDIRECT"):
            word, severity, does, advice = known
            if kind == "all" and target == "REDIRECT" and rule.value("--to-ports") == "":
                continue
            yield Finding(word, severity, f"a rule {does}: {where}", advice)


def _published(rule: Rule, where: str) -> Finding:
    to = rule.value("--to-destination")
    return note(
        "foreign.dnat",
        f"connections to a P2P port are passed on to {to}: {where}",
        "the node there has a network namespace of its own, and its packets only pass this host: mcencrypt has to "
        "run there (sidecar, or `mcencrypt daemon --netns`)",
    )


def _check_native(case: Case) -> Iterator[Finding]:
    """Tables made with nft itself, where nft is there to show them."""
    output = case.machine.run("nft", "list", "ruleset")
    if output.status:
        return
    table = ""
    for line in output.text.splitlines():
        line = line.strip()
        if line.startswith("table "):
            table = line.removesuffix("{").strip()
        # iptables-nft's own tables were looked at above.
        if re.match(r"table ip6? (raw|mangle|nat|filter|security)$", table):
            continue
        verdict = re.search(r"\b(queue|tproxy|synproxy|redirect|drop|reject)\b", line)
        if verdict and re.search(r"\btcp [ds]port\b", line) and _names(line, case.ports):
            yield warning(
                "foreign.nft",
                f"a rule of nft names a P2P port: {table}: {line}",
                "meant for MultiChain? packets that it drops, redirects or queues do not reach mcencrypt",
            )


def _names(line: str, ports: Sequence[int]) -> bool:
    expression = re.search(r"\btcp [ds]port (?:!= )?(\{[^}]*\}|\S+)", line)
    if expression is None:
        return False
    parts = expression.group(1).strip("{} ").replace("-", ":").split(",")
    return any(_in_range(port, part.strip()) for port in ports for part in parts)


def check_programs(case: Case) -> Iterator[Finding]:
    """Programs that change packet rules, by what runs and by the names of chains."""
    seen: dict[str, str] = {}
    for process in case.processes():
        if process.name in _PROGRAMS and case.is_here(process):
            name, says = _PROGRAMS[process.name]
            seen[name] = says
    try:
        texts = [one.text for one in case.machine.rules()]
    except OperatorError:
        texts = []
    for prefix, name in _CHAINS.items():
        if any(f"\n:{prefix}" in f"\n{text}" for text in texts):
            seen.setdefault(name, "its chains are in the tables")
    for name, says in seen.items():
        yield note(f"foreign.{name.lower()}", f"{name} is at work here: {says}")


def _drops_the_rest(text: str, filters: Table) -> bool:
    """Whether INPUT ends in DROP or REJECT, as its policy or as a rule."""
    for rule in filters.rules:
        if rule.chain == "INPUT" and rule.value("-j") in ("DROP", "REJECT") and concerns(rule, ()) == "all":
            return True
    inside = False
    for line in text.splitlines():
        if line.startswith("*"):
            inside = line.strip() == "*filter"
        elif inside and line.startswith(":INPUT DROP"):
            return True
    return False


def _lets_in(table: Table, ports: Sequence[int]) -> bool:
    return any(rule.value("-j") == "ACCEPT" and concerns(rule, ports) for rule in table.rules)


def _in_range(port: int, text: str) -> bool:
    low, _, high = text.partition(":")
    if not (low + high).isdigit():
        return False
    return int(low or 0) <= port <= int(high or (low if ":" not in text else 65535))


def _after(words: list[str], option: str) -> str:
    return words[words.index(option) + 1] if option in words[:-1] else ""


def _words(rule: Rule) -> list[str]:
    try:
        return shlex.split(rule.spec)
    except ValueError:
        return rule.spec.split()


def _list(ports: Sequence[int]) -> str:
    return ", ".join(map(str, ports))
