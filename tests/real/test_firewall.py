"""The rules in a real kernel: a namespace of their own for every test, both iptables backends."""

from __future__ import annotations

import itertools
import os
import re
import select
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lab import PATIENCE, wait_for
from mcencrypt.doctor.machine import ThisMachine
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Job, Steps, perform
from mcencrypt.kernel.firewall import Firewall, rules_left
from mcencrypt.kernel.iptables import V4
from mcencrypt.kernel.ruleset import State
from tests.helpers.netns import needs_root, shell

pytestmark = [
    needs_root,
    pytest.mark.usefixtures("in_namespace"),
    pytest.mark.skipif(not shutil.which("iptables"), reason="needs iptables"),
]

PORTS = list(range(7001, 7018))


@pytest.fixture(params=["iptables-nft", "iptables-legacy"])
def tables(request: pytest.FixtureRequest) -> str:
    if not shutil.which(request.param):
        pytest.skip(f"needs {request.param}")
    return str(request.param)


@pytest.fixture
def firewall(tables: str) -> Firewall:
    return Firewall(PORTS, 40, {**os.environ, "MCENCRYPT_IPTABLES": tables})


def everything() -> str:
    commands = [f"ip{v}tables-{backend}-save" for v in ("", "6") for backend in ("nft", "legacy")]
    return "".join(shell(command) for command in commands if shutil.which(command))


def look(firewall: Firewall) -> State:
    return perform(firewall.checking(), 60)


def present(firewall: Firewall) -> bool:
    return look(firewall) is State.PRESENT


def test_install_twice_and_remove_twice(firewall: Firewall) -> None:
    assert not present(firewall)
    for _ in range(2):
        firewall.install()
        assert present(firewall)
    assert everything().count("-j NFQUEUE --queue-num 40\n") == 16
    for _ in range(2):
        firewall.remove()
        assert not present(firewall)
        assert "mcencrypt" not in everything().lower()


def test_what_the_kernel_shows_is_what_was_rendered(firewall: Firewall, tables: str) -> None:
    firewall.install()
    shown = shell(f"{tables}-save -t raw; {tables}-save -t mangle")
    for line in firewall.render()[V4].splitlines():
        if line.startswith("-"):
            assert line.replace("-I OUTPUT 1", "-A OUTPUT").replace("-I INPUT 1", "-A INPUT") in shown


def test_rules_of_others_stay_and_come_after_ours(firewall: Firewall, tables: str) -> None:
    shell(f"{tables} -t raw -A OUTPUT -d 192.0.2.1 -j ACCEPT; {tables} -t raw -N theirs")
    firewall.install()
    shell(f"{tables} -t raw -I OUTPUT 1 -d 192.0.2.2 -j ACCEPT")
    assert look(firewall) is State.DISPLACED
    firewall.install()
    order = [line.split()[-1] for line in shell(f"{tables} -t raw -S OUTPUT").splitlines()[1:]]
    assert order == ["MCENCRYPT-OUT", "ACCEPT", "ACCEPT"]
    firewall.remove()
    left = shell(f"{tables} -t raw -S")
    assert "192.0.2.1" in left and "192.0.2.2" in left and "theirs" in left


@pytest.mark.parametrize(
    "damage",
    [
        "-t raw -F",
        "-t mangle -F",
        "-t raw -D OUTPUT 1",
        "-t mangle -D MCENCRYPT-IN 1",
        "-t raw -F OUTPUT; {} -t raw -F; {} -t raw -X",
    ],
)
@pytest.mark.parametrize("family", ["", "6"])
def test_damage_is_noticed_repaired_and_does_not_hinder_removal(
    firewall: Firewall, tables: str, damage: str, family: str
) -> None:
    command = tables.replace("iptables", f"ip{family}tables")
    firewall.install()
    shell(f"{command} {damage.replace('{}', command)}")
    assert look(firewall) is State.MISSING
    assert not present(firewall)
    firewall.install()
    assert look(firewall) is State.PRESENT
    shell(f"{command} {damage.replace('{}', command)}")
    firewall.remove()
    assert "mcencrypt" not in everything().lower()


def commands_of(steps: Steps[State]) -> int:
    """Commands that a look begins with: 1, or 0 if it needs none."""
    return sum(1 for _ in itertools.islice(steps, 1))


@pytest.mark.parametrize("tables", ["iptables-nft"], indirect=True)
def test_a_look_at_what_has_not_changed_runs_nothing(firewall: Firewall) -> None:
    """Whoever changes whatever in nf_tables, the next look is a whole one."""
    firewall.install()
    assert commands_of(firewall.checking()) and present(firewall)
    for _ in range(3):
        assert not commands_of(firewall.checking())
    shell("iptables-nft -t nat -A OUTPUT -d 192.0.2.1 -j ACCEPT")
    assert commands_of(firewall.checking()), "although it was not seen to be in place meanwhile"
    assert present(firewall) and not commands_of(firewall.checking())
    shell("ip6tables-nft -t raw -F")
    assert look(firewall) is look(firewall) is State.MISSING


@pytest.mark.parametrize("tables", ["iptables-legacy"], indirect=True)
def test_where_changes_are_not_counted_each_look_is_a_whole_one(firewall: Firewall) -> None:
    firewall.install()
    assert present(firewall) and commands_of(firewall.checking())


def test_a_jump_that_was_added_again_by_hand_is_reduced_to_one(firewall: Firewall, tables: str) -> None:
    firewall.install()
    jump = shell(f"{tables} -t raw -S OUTPUT").splitlines()[1]
    shell(f"{tables} -t raw {jump}; {tables} -t raw -A PREROUTING -j MCENCRYPT-OUT")
    firewall.install()
    assert shell(f"{tables} -t raw -S").count("-j MCENCRYPT-OUT") == 1
    assert present(firewall)


def test_changing_backend_leaves_no_second_set_that_would_queue_everything_twice() -> None:
    if not (shutil.which("iptables-nft") and shutil.which("iptables-legacy")):
        pytest.skip("needs both backends")
    for tables in ("iptables-nft", "iptables-legacy", "iptables-nft"):
        Firewall(PORTS, 40, {**os.environ, "MCENCRYPT_IPTABLES": tables}).install()
        assert everything().count("-j NFQUEUE --queue-num 40\n") == 16


def test_removal_cleans_up_what_another_backend_holds() -> None:
    for tables in ("iptables-nft", "iptables-legacy"):
        if shutil.which(tables):
            Firewall(PORTS, 40, {**os.environ, "MCENCRYPT_IPTABLES": tables}).install()
    Firewall(PORTS, 40).remove()
    assert "mcencrypt" not in everything().lower()


def test_replacing_rules_never_lets_a_packet_pass(firewall: Firewall, tables: str) -> None:
    """With no daemon the queue drops: no segment of a flood may leave while ports change to and fro."""
    shell(
        "ip link add name va type veth peer name vb; ip addr add 192.0.2.1/24 dev va;"
        "ip link set va up; ip link set vb up; ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev va;"
        f"{tables} -t mangle -A POSTROUTING -o va -p tcp"
    )
    firewall.install()
    flood = (
        "import socket, struct\n"
        "s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)\n"
        "p = struct.pack('!HHIIBBHHH', 7001, 50000, 1, 1, 0x50, 0x10, 99, 0, 0)\n"
        "while True:\n"
        "    try: s.sendto(p, ('192.0.2.2', 0))\n"
        "    except PermissionError: pass\n"
    )
    process = subprocess.Popen([sys.executable, "-c", flood])
    try:
        wait_for(lambda: packets(tables, "raw", "OUTPUT") > 0, "packets of the flood")
        for number in range(6):
            ports = PORTS if number % 2 else [7001, 9000]
            Firewall(ports, 40, {**os.environ, "MCENCRYPT_IPTABLES": tables}).install()
            seen = packets(tables, "raw", "OUTPUT")
            wait_for(lambda seen=seen: packets(tables, "raw", "OUTPUT") > seen, "more of them")
        assert packets(tables, "mangle", "POSTROUTING") == 0
        firewall.remove()
        wait_for(lambda: packets(tables, "mangle", "POSTROUTING") > 0, "packets that leave")
    finally:
        process.kill()
        process.wait()


def packets(tables: str, table: str, chain: str) -> int:
    """What the first rule of a chain has counted."""
    return int(shell(f"{tables} -t {table} -nvxL {chain}").splitlines()[2].split()[0])


def test_nf_tables_changes_wake_the_watcher(firewall: Firewall, tables: str) -> None:
    if tables != "iptables-nft":
        pytest.skip("iptables-legacy raises no event")
    firewall.install()
    events = firewall.events()
    assert not events.handle_events()
    shell(f"{tables} -t raw -F")
    assert select.select([events], [], [], PATIENCE)[0]
    assert events.handle_events()
    events.close()


def test_a_failing_iptables_save_is_an_error_and_not_missing(firewall: Firewall, tmp_path: Path) -> None:
    for name in ("iptables-save", "ip6tables-save", "iptables-restore", "ip6tables-restore"):
        (tmp_path / name).write_text("#!/bin/sh\necho out of order >&2\nexit 3\n")
        (tmp_path / name).chmod(0o755)
    broken = Firewall(PORTS, 40, {"PATH": str(tmp_path)})
    with pytest.raises(OperatorError, match="the rules cannot be read: out of order"):
        look(broken)
    with pytest.raises(OperatorError, match="iptables-save failed: out of order"):
        broken.install()


def test_a_look_that_is_given_up_says_nothing_and_changes_nothing(firewall: Firewall) -> None:
    firewall.install()
    before = everything_as_bytes()
    job = Job(firewall.checking(), 60)
    job.cancel()
    assert job.poll() and job.result is None
    assert everything_as_bytes() == before
    assert present(firewall)


def test_ipv6_disabled_by_sysctl_still_gets_rules(firewall: Firewall) -> None:
    Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    firewall.install()
    assert "ipv6" in firewall.families()
    assert present(firewall)


# -- what others write into their rules


ODD = [b"R\xe9seau", b"a\nCOMMIT\n*raw\n:MCENCRYPT-OUT - [0:0]\n", b"q\"u\\o'te", "two\u2028lines\x85".encode()]


def test_comments_of_others_may_hold_whatever_they_like(firewall: Firewall, tables: str) -> None:
    for table, chain in (("raw", "OUTPUT"), ("mangle", "INPUT"), ("filter", "FORWARD")):
        for command in (tables, tables.replace("iptables", "ip6tables")):
            append = [command, "-t", table, "-A", chain]
            for comment in ODD:
                subprocess.run([*append, "-m", "comment", "--comment", comment, "-j", "ACCEPT"], check=True)
            subprocess.run(append, check=True)  # a rule that only counts
    assert not any(one.error for one in ThisMachine(firewall._environ).rules())
    before = everything_as_bytes()
    for _ in range(2):
        firewall.install()
        assert present(firewall)
    shell(f"{tables} -t raw -D OUTPUT 1")
    assert look(firewall) is State.MISSING
    firewall.install()
    firewall.remove()
    assert everything_as_bytes() == before


def everything_as_bytes() -> bytes:
    """All rules, without the lines that say when."""
    commands = [f"ip{v}tables-{backend}-save" for v in ("", "6") for backend in ("nft", "legacy")]
    shown = b"".join(subprocess.run([one], check=True, capture_output=True).stdout for one in commands)
    return b"\n".join(line for line in shown.split(b"\n") if not line.startswith(b"# "))


# -- rules made with nft itself, as network plugins of Kubernetes add them


NATIVE = ["ip raw OUTPUT", "ip mangle INPUT", "ip6 raw OUTPUT"]
needs_nft = pytest.mark.skipif(not shutil.which("nft"), reason="needs nft (Debian: nftables)")


def add_native(place: str) -> None:
    """A rule that iptables-save does not know, so that it shows nothing of that table."""
    family, table, chain = place.split()
    shell(f"nft 'add table {family} {table}; add chain {family} {table} {chain} "
          f"{{ type filter hook {chain.lower()} priority {table}; }}; "
          f"add rule {family} {table} {chain} tcp dport 9 numgen inc mod 2 0 accept'")  # fmt: skip
    tool = "iptables-nft" if family == "ip" else "ip6tables-nft"
    assert "is incompatible" in shell(f"{tool}-save -t {table}")


@needs_nft
@pytest.mark.parametrize("place", NATIVE)
@pytest.mark.parametrize("when", ["before", "after"])
def test_what_iptables_does_not_show_is_read_from_the_kernel(firewall: Firewall, place: str, when: str) -> None:
    if when == "before":
        add_native(place)
        assert look(firewall) is State.MISSING
    firewall.install()
    if when == "after":
        add_native(place)
    for _ in range(3):
        assert present(firewall)
        firewall.install()
    family, table, chain = place.split()
    listed = shell(f"nft list table {family} {table}")
    if "nft" in str(firewall._environ["MCENCRYPT_IPTABLES"]):
        assert listed.count("jump MCENCRYPT-") == 1
        assert len(re.findall(r"queue num 40$", listed, re.M)) == 4
        shell(f"nft insert rule {family} {table} {chain} accept")
        assert look(firewall) is State.DISPLACED
        firewall.install()
        assert present(firewall)
        assert shell(f"nft list table {family} {table}").count("jump MCENCRYPT-") == 1
        shell(f"nft flush chain {family} {table} {chain}")
        add_native(place)
        assert look(firewall) is State.MISSING
        firewall.install()
    firewall.remove()
    left = shell("nft list ruleset")
    assert "MCENCRYPT" not in left
    assert "numgen" in left


@needs_nft
def test_other_ports_replace_the_rules_of_a_table_that_is_not_shown(firewall: Firewall, tables: str) -> None:
    if tables != "iptables-nft":
        pytest.skip("iptables-legacy knows no native rules")
    firewall.install()
    add_native("ip raw OUTPUT")
    firewall.with_ports([4000]).install()
    listed = shell("nft list chain ip raw MCENCRYPT-OUT")
    assert "4000" in listed and "7001" not in listed
    assert listed.count("queue num 40") == 2


def test_off_does_not_claim_what_it_could_not_see(firewall: Firewall, tables: str, tmp_path: Path) -> None:
    """Another backend whose rules are there and cannot be read: not "no rules left"."""
    firewall.install()
    for name in ("iptables-nft", "iptables-legacy"):
        for command in ("save", "restore"):
            for tool in (name, name.replace("iptables", "ip6tables")):
                script = tmp_path / f"{tool}-{command}"
                script.write_text("#!/bin/sh\necho out of order >&2\nexit 3\n" if name == tables else
                                  f'#!/bin/sh\nexec {shutil.which(f"{tool}-{command}")} "$@"\n')  # fmt: skip
                script.chmod(0o755)
    other = "iptables-legacy" if tables == "iptables-nft" else "iptables-nft"
    with pytest.raises(OperatorError, match="failed: out of order"):
        Firewall(PORTS, 40, {"PATH": f"{tmp_path}:/usr/bin:/bin", "MCENCRYPT_IPTABLES": other}).remove()


def test_a_script_in_front_of_iptables_is_not_another_backend(firewall: Firewall, tables: str, tmp_path: Path) -> None:
    """Its rules were taken for another backend's, and removed as soon as they were in."""
    for verb in ("save", "restore"):
        for family in ("ip", "ip6"):
            command = shutil.which(f"{tables.replace('ip', family, 1)}-{verb}")
            script = tmp_path / f"{family}tables-{verb}"
            script.write_text(f'#!/bin/sh\nexec {command} "$@"\n')
            script.chmod(0o755)
    scripted = Firewall(PORTS, 40, {**os.environ, "MCENCRYPT_IPTABLES": str(tmp_path / "iptables")})
    scripted.install()
    assert present(scripted) and present(firewall)
    assert everything().count("-j NFQUEUE --queue-num 40\n") == 16
    assert perform(rules_left({"PATH": "/nowhere", "MCENCRYPT_IPTABLES": str(tmp_path / "iptables")}), 60)
    scripted.remove()
    assert "mcencrypt" not in everything().lower()


@pytest.fixture
def without_u32(tmp_path: Path, tables: str) -> str:
    """The same commands, but where there is no match u32; their common part, as a path."""
    for family in ("ip", "ip6"):
        save, restore = (shutil.which(f"{tables.replace('ip', family, 1)}-{verb}") for verb in ("save", "restore"))
        (tmp_path / f"{tables.replace('ip', family, 1)}-save").symlink_to(str(save))
        script = tmp_path / f"{tables.replace('ip', family, 1)}-restore"
        script.write_text(
            "#!/bin/sh\ninput=$(cat)\n"
            'case "$input" in *u32*) echo "no such match" >&2; exit 2;; esac\n'
            f"""printf '%s\\n' "$input" | exec {restore} "$@"\n"""
        )
        script.chmod(0o755)
    return f"{tmp_path}/{tables}"


def test_where_there_is_no_u32_all_errors_of_icmp_are_taken(without_u32: str) -> None:
    firewall = Firewall(PORTS, 40, {**os.environ, "MCENCRYPT_IPTABLES": without_u32})
    firewall.install()
    text = everything()
    assert "u32" not in text and text.count("--icmp-type") == text.count("--icmpv6-type") == 4
    assert present(firewall)
    again = firewall.with_ports(PORTS[:3])
    again.install()
    assert present(again)
    again.remove()
    assert "MCENCRYPT" not in everything()


def test_rules_are_held_without_u32(without_u32: str) -> None:
    firewall = Firewall(PORTS, 40, {**os.environ, "MCENCRYPT_IPTABLES": without_u32})
    firewall.hold()
    assert present(firewall)
