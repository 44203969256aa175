"""Our iptables rules, and the queue that they lead to."""

from __future__ import annotations

from collections.abc import Iterator

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, ok, problem, warning
from mcencrypt.doctor.machine import Saved
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.firewall import Firewall
from mcencrypt.kernel.ruleset import Rule, Ruleset, State, judge
from mcencrypt.nodes.processes import socket_inodes

_NETLINK_NETFILTER = "12"
_QUEUES = "/proc/thread-self/net/netfilter/nfnetlink_queue"


def check_backend(case: Case) -> Iterator[Finding]:
    """Which iptables, and whether two of them hold rules at the same time."""
    try:
        saved = case.machine.rules()
    except OperatorError as error:
        yield problem("iptables.missing", str(error).partition(": ")[0], "install iptables")
        return
    unread = [one for one in saved if one.error]
    if unread and case.machine.uid():
        yield note("iptables.unseen", "the iptables rules cannot be read by this user", "run this as root")
    elif unread and unread[0].command == saved[0].command:
        what, _, advice = unread[0].error.partition(": ")
        yield problem("iptables.fails", what, advice)
    if not saved:
        return
    chosen = saved[0]
    families = {one.family for one in saved if one.command.rpartition("/")[0] == chosen.command.rpartition("/")[0]}
    yield ok("iptables.backend", f"{chosen.command} works on iptables-{chosen.kind}")
    if "ipv6" not in families:
        yield problem(
            "iptables.no-ipv6",
            "ip6tables is not installed: MultiChain nodes learn and dial IPv6 addresses by themselves",
            "install ip6tables (package iptables)",
        )
    holding = {one.kind: one for one in saved if not one.error and _rules(one)}
    if len(holding) > 1:
        ours = [one.kind for one in holding.values() if Ruleset.parse(one.text).ours().tables]
        if len(ours) > 1:
            yield problem(
                "iptables.twice",
                "iptables-nft and iptables-legacy both hold rules of mcencrypt: each packet is queued twice",
                "run `mcencrypt on`, which leaves those of one backend",
            )
        else:
            other = next(kind for kind in holding if kind != chosen.kind)
            yield note(
                "iptables.mixed",
                f"iptables-{other} holds {len(_rules(holding[other]))} rules as well, which `{chosen.command}` "
                "does not show",
                "have all programs use one backend (update-alternatives --config iptables)",
            )


def check_rules(case: Case) -> Iterator[Finding]:
    """Are ours in place, first, and is there a daemon behind them."""
    try:
        saved = [one for one in case.machine.rules() if not one.error]
    except OperatorError:
        return
    if not saved or not case.ports:
        return
    texts = {one.family: one.text for one in reversed(saved)}
    # With u32 or, where there is none, without: either way is right.
    ways = [
        Firewall(case.ports, case.queue_number, case.environ, case.fence_mark, selective).render()
        for selective in (True, False)
    ]
    states = {
        family: min(
            (_state(Ruleset.parse(text), Ruleset.parse(way[family])) for way in ways), key=lambda one: one.value
        )
        for family, text in texts.items()
        if family in ways[0]
    }
    there = [one for one in saved if Ruleset.parse(one.text).ours().tables]
    hidden = [f"{one.family} {name}" for one in saved for name in sorted(Ruleset.parse(one.text).unread)]
    if hidden:
        yield note(
            "rules.hidden",
            f"iptables-save does not show everything: {', '.join(hidden)} (rules made with nft itself are in there)",
            "the daemon reads its own rules from the kernel there; `nft list ruleset` shows all",
        )
    if case.status is None:
        if hidden and not there:
            yield note("rules.unseen", "no daemon; whether rules of mcencrypt are left cannot be seen", "mcencrypt off")
        elif there:
            yield problem(
                "rules.no-daemon",
                "the rules are in place and no daemon answers: the kernel drops every packet on the P2P ports",
                "start it with `mcencrypt on` or `systemctl start mcencrypt`; or take the rules out: `mcencrypt off`",
            )
        else:
            yield note("rules.none", "no rules and no daemon: P2P traffic is plaintext", "mcencrypt on")
        return
    if not case.rules_expected:
        if there:
            yield warning("rules.left", "mcencrypt is off and rules of it are still there", "run `mcencrypt off` again")
        elif not hidden:
            yield note("rules.off", "mcencrypt is switched off: P2P traffic is plaintext", "mcencrypt on")
        return
    for family, state in states.items():
        if state is State.UNKNOWN:
            yield note(f"rules.{family}", f"{family}: not all of the rules can be seen", "mcencrypt status --check")
        elif state is State.PRESENT:
            yield ok(f"rules.{family}", f"{family}: all rules are in place and come first")
        elif state is State.DISPLACED:
            yield problem(
                f"rules.{family}",
                f"{family}: a rule of somebody else comes before ours in raw OUTPUT or mangle INPUT: "
                f"{_first_before(texts[family])}",
                "the daemon moves its own to the front within seconds; stop the program that puts its first",
            )
        else:
            yield problem(
                f"rules.{family}",
                f"{family}: rules of mcencrypt are missing or changed: packets are dropped by the fence, or pass in "
                "plaintext where there is none",
                "the daemon puts them back within seconds; if this stays, find the program that removes them "
                "(`mcencrypt status --json`: rules_lost)",
            )


def check_queue(case: Case) -> Iterator[Finding]:
    """Who reads our queue, and whether packets got lost there."""
    number = case.queue_number
    try:
        rows = [line.split() for line in case.machine.text(_QUEUES).splitlines()]
    except FileNotFoundError:
        return  # nothing has bound a queue since the kernel started
    except OSError:
        yield note("queue.unseen", "who reads the netfilter queues cannot be seen by this user", "run this as root")
        return
    mine = next((row for row in rows if len(row) > 6 and int(row[0]) == number), None)
    if mine is None:
        if case.rules_expected:
            yield problem(
                "queue.unbound",
                f"nobody reads netfilter queue {number}, to which the rules lead: every P2P packet is dropped",
                "restart the daemon",
            )
        return
    reader = _reader(case, int(mine[1]))
    if reader is None and case.status is None:
        yield problem(
            "queue.taken",
            f"netfilter queue {number} is read by some other program (netlink port {mine[1]})",
            "set queue_number to another number, or stop that program",
        )
    elif reader is not None and reader[0] != case.daemon_pid:
        yield problem(
            "queue.taken",
            f"netfilter queue {number} is read by {reader[1]} (pid {reader[0]}), not by mcencrypt's daemon",
            "set queue_number to another number, or stop that program",
        )
    elif case.status:
        yield ok("queue.reader", f"netfilter queue {number} is read by the daemon")
    lost = int(mine[5]) + int(mine[6])
    if lost:
        yield warning(
            "queue.drops",
            f"{lost} packets found netfilter queue {number} full ({mine[5]}) or the daemon's socket full ({mine[6]})",
            "a few after a burst are harmless; if the number grows all the time, give the daemon more processor time",
        )


def _reader(case: Case, port: int) -> tuple[int, str] | None:
    """(pid, name) of the process that owns the netlink socket with this port id, as /proc/net/netlink has it."""
    inode = ""
    try:
        for line in case.machine.text("/proc/thread-self/net/netlink").splitlines()[1:]:
            columns = line.split()
            if columns[1] == _NETLINK_NETFILTER and int(columns[2]) == port:
                inode = columns[-1]
    except (OSError, ValueError, IndexError):
        return None
    if not inode:
        return None
    # The port id is mostly the process id, but for a process that opened several.
    candidates = sorted(case.processes(), key=lambda one: one.pid not in (port, case.daemon_pid))
    for process in candidates:
        if inode in (socket_inodes(case.machine, process.pid) or ()):
            return process.pid, process.name
    return None


def _state(saved: Ruleset, wanted: Ruleset) -> State:
    state = judge(saved, wanted)
    # Another version of iptables may show the same rules in other words.
    return State.PRESENT if state is State.MISSING and saved.same_shape(wanted) else state


def _rules(saved: Saved) -> list[Rule]:
    return [rule for table in Ruleset.parse(saved.text).tables.values() for rule in table.rules]


def _first_before(text: str) -> str:
    for name, chain in (("raw", "OUTPUT"), ("mangle", "INPUT")):
        table = Ruleset.parse(text).tables.get(name)
        first = table.first(chain) if table else None
        if first is not None and not first.is_jump:
            return f"{name}: -A {first.chain} {first.spec}"
    return "it is gone already"
