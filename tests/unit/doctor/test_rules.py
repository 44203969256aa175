"""Doctor: iptables rules, the queue, and other programs' rules, on recorded outputs."""

from __future__ import annotations

from mcencrypt.doctor.finding import Severity
from mcencrypt.doctor.machine import Saved
from mcencrypt.doctor.rules import check_backend, check_queue, check_rules
from mcencrypt.kernel.iptables import V4
from tests.helpers.recorded_machine import (
    DAEMON,
    NETLINK,
    QUEUE,
    QUEUES,
    Recorded,
    by_id,
    case,
    our_rules,
    status,
    worst,
)


def test_rules_in_place(machine: Recorded) -> None:
    found = list(check_rules(case(machine, status())))
    assert {one.id for one in found} == {"rules.ipv4", "rules.ipv6"}
    assert worst(found) is Severity.OK
    assert worst(list(check_backend(case(machine, status())))) is Severity.OK


def test_missing_rules_of_one_family_are_a_problem(machine: Recorded) -> None:
    machine.saved[1] = machine.saved[1]._replace(text="*raw\n:OUTPUT ACCEPT [0:0]\nCOMMIT\n")
    found = list(check_rules(case(machine, status())))
    assert by_id(found, "rules.ipv4").severity is Severity.OK
    assert by_id(found, "rules.ipv6").severity is Severity.PROBLEM


def test_a_table_that_iptables_does_not_show_is_not_called_missing(machine: Recorded) -> None:
    shown = machine.saved[0].text
    raw = shown[shown.index("*raw") : shown.index("*mangle")]
    machine.change_rules(V4, raw, "# Table `raw' is incompatible, use 'nft' tool.\n")
    found = list(check_rules(case(machine, status())))
    assert by_id(found, "rules.hidden").severity is Severity.NOTE
    assert by_id(found, "rules.ipv4").severity is Severity.NOTE
    assert by_id(found, "rules.ipv6").severity is Severity.OK
    machine.saved = [one._replace(text="# Table `raw' is incompatible, use 'nft' tool.\n") for one in machine.saved]
    assert {one.id for one in check_rules(case(machine, None))} == {"rules.hidden", "rules.unseen"}
    assert {one.id for one in check_rules(case(machine, status(enabled=False)))} == {"rules.hidden"}


def test_a_rule_before_ours_is_shown(machine: Recorded) -> None:
    machine.change_rules(V4, "-A OUTPUT ! -o lo", "-A OUTPUT -p tcp -m tcp --dport 7331 -j ACCEPT\n-A OUTPUT ! -o lo")
    found = by_id(list(check_rules(case(machine, status()))), "rules.ipv4")
    assert found.severity is Severity.PROBLEM
    assert "raw: -A OUTPUT -p tcp -m tcp --dport 7331 -j ACCEPT" in found.text


def test_rules_without_a_daemon_are_a_problem_and_neither_is_none(machine: Recorded) -> None:
    assert by_id(list(check_rules(case(machine, None))), "rules.no-daemon").severity is Severity.PROBLEM
    machine.saved = [one._replace(text="") for one in machine.saved]
    assert by_id(list(check_rules(case(machine, None))), "rules.none").severity is Severity.NOTE


def test_rules_are_not_missed_while_off_but_are_noticed(machine: Recorded) -> None:
    off = status(enabled=False)
    assert by_id(list(check_rules(case(machine, off))), "rules.left").severity is Severity.WARNING
    machine.saved = [one._replace(text="") for one in machine.saved]
    assert by_id(list(check_rules(case(machine, off))), "rules.off").severity is Severity.NOTE


def test_both_backends_with_rules(machine: Recorded) -> None:
    ban = "*filter\n-A INPUT -s 192.0.2.1/32 -j DROP\nCOMMIT\n"
    legacy = Saved("/usr/sbin/iptables-legacy-save", "legacy", V4, ban, "")
    machine.saved.append(legacy)
    assert by_id(list(check_backend(case(machine, status()))), "iptables.mixed").severity is Severity.NOTE
    machine.saved[-1] = legacy._replace(text=our_rules()[V4])
    assert by_id(list(check_backend(case(machine, status()))), "iptables.twice").severity is Severity.PROBLEM


def test_no_ip6tables_and_no_iptables_are_problems(machine: Recorded) -> None:
    del machine.saved[1]
    assert by_id(list(check_backend(case(machine, status()))), "iptables.no-ipv6").severity is Severity.PROBLEM
    machine.saved.clear()
    assert by_id(list(check_backend(case(machine, status()))), "iptables.missing").severity is Severity.PROBLEM


def test_rules_that_this_user_cannot_read_are_said_to_be_unseen(machine: Recorded) -> None:
    denied = "/usr/sbin/iptables-save failed: Permission denied (you must be root): run as root"
    machine.user = 1000
    machine.saved = [one._replace(text="", error=denied) for one in machine.saved]
    found = list(check_backend(case(machine, None)))
    assert by_id(found, "iptables.unseen").severity is Severity.NOTE
    assert worst(found) is Severity.NOTE
    assert not list(check_rules(case(machine, None)))


# ------------------------------------------------------------ the queue


def test_the_daemon_reads_the_queue(machine: Recorded) -> None:
    assert by_id(list(check_queue(case(machine, status()))), "queue.reader").severity is Severity.OK


def test_another_program_reads_our_queue(machine: Recorded) -> None:
    machine.add_process(777, "suricata", "suricata", "-q", str(QUEUE), sockets=("9001",))
    del machine.targets[f"/proc/{DAEMON}/fd/3"]
    found = by_id(list(check_queue(case(machine, status()))), "queue.taken")
    assert found.severity is Severity.PROBLEM and "suricata (pid 777)" in found.text
    machine.files["/proc/thread-self/net/netlink"] = NETLINK.replace(" 4242 ", " 4711 ")
    found = by_id(list(check_queue(case(machine, None))), "queue.taken")
    assert found.severity is Severity.PROBLEM


def test_nobody_reads_the_queue_while_rules_lead_to_it(machine: Recorded) -> None:
    machine.files["/proc/thread-self/net/netfilter/nfnetlink_queue"] = "1 99 0 2 1024 0 0 3 1\n"
    assert by_id(list(check_queue(case(machine, status()))), "queue.unbound").severity is Severity.PROBLEM
    assert not list(check_queue(case(machine, None)))


def test_packets_lost_at_the_queue(machine: Recorded) -> None:
    lossy = QUEUES.replace("65531     0     0", "65531     5     7")
    machine.files["/proc/thread-self/net/netfilter/nfnetlink_queue"] = lossy
    found = by_id(list(check_queue(case(machine, status()))), "queue.drops")
    assert found.severity is Severity.WARNING and found.text.startswith("12 packets")


def test_a_queue_that_this_user_cannot_see(machine: Recorded) -> None:
    machine.files["/proc/thread-self/net/netfilter/nfnetlink_queue"] = "forbidden"
    assert by_id(list(check_queue(case(machine, None))), "queue.unseen").severity is Severity.NOTE
