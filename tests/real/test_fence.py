"""The fence in a real kernel: what passes it, who can change it, what outlives whom."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from lab import Pair, direct_pair, wait_for
from lab.nursery import importable
from mcencrypt.errors import OperatorError
from mcencrypt.kernel import nftables
from mcencrypt.kernel.fence import DEFAULT_MARK, Fence, NoFenceError, Standing
from tests.helpers.netns import inside, namespace, shell
from tests.helpers.nodes import PLAIN_PORT, PORT, needs_lab

PORTS = (PORT, 8571)
NFT = shutil.which("nft")

pytestmark = needs_lab
needs_nft = pytest.mark.skipif(NFT is None, reason="needs nft (Debian: nftables)")


@pytest.fixture(autouse=True)
def in_namespace(request: pytest.FixtureRequest) -> Iterator[None]:
    if "pair" in request.fixturenames:
        yield
        return
    with namespace() as name, inside(name):
        yield


@pytest.fixture
def fence() -> Iterator[Fence]:
    made = Fence(PORTS)
    try:
        made.install()
    except NoFenceError as reason:
        pytest.skip(str(reason))
    yield made
    made.close()


@pytest.fixture
def common(monkeypatch: pytest.MonkeyPatch) -> Iterator[Fence]:
    """A fence as kernels before 6.9 have it: anybody can change it."""
    monkeypatch.setattr(nftables, "TABLE_F_OWNER", 0)
    monkeypatch.setattr(nftables, "TABLE_F_PERSIST", 0)
    made = Fence(PORTS)
    made.install()
    yield made
    made.close()


def owned(fence: Fence) -> Fence:
    if not fence.is_ours:
        pytest.skip("the kernel has no owned tables that persist (Linux 6.9)")
    return fence


def nft(words: str, check: bool = True) -> str:
    return subprocess.run(["nft", *words.split()], check=check, capture_output=True, text=True).stdout


# -- the table


@needs_nft
def test_nft_shows_what_is_meant(fence: Fence) -> None:
    shown = " ".join(nft("list table inet mcencrypt").split())
    for hook, priority in (("output", "raw - 10"), ("output", "raw + 10"), ("input", "mangle - 10"),
                           ("input", "mangle + 10")):  # fmt: skip
        assert f"type filter hook {hook} priority {priority}; policy accept;" in shown
    assert f"elements = {{ {PORT}, 8571 }}" in shown
    for device, ports in (("oifname", "sport"), ("oifname", "dport"), ("iifname", "sport"), ("iifname", "dport")):
        match = f'{device} != "lo" tcp {ports} @ports meta mark'
        assert shown.count(f"{match} set meta mark & 0xffffffdf") == 2
        assert shown.count(f"{match} & 0x00000020 == 0x00000000 counter packets 0 bytes 0 drop") == 1


def test_it_is_whole_from_install_to_remove_and_either_may_be_done_twice(fence: Fence) -> None:
    assert fence.look() is Standing.WHOLE
    fence.install()
    assert fence.look() is Standing.WHOLE
    for _ in range(2):
        fence.remove()
        assert fence.look() is Standing.BROKEN
    if NFT:
        assert nft("list ruleset") == ""


def test_other_ports_take_the_place_of_the_old_ones(fence: Fence) -> None:
    fence.with_ports([4000])
    assert fence.look() is Standing.BROKEN
    fence.install()
    assert fence.look() is Standing.WHOLE
    assert Fence([4000]).look() is Standing.WHOLE
    assert Fence(PORTS).look() is Standing.BROKEN
    assert Fence([4000], 0x40).look() is Standing.BROKEN


@pytest.mark.parametrize("count", [1, 1000, 3000])
def test_many_ports(fence: Fence, count: int) -> None:
    fence.with_ports(range(1, count + 1))
    fence.install()
    assert fence.look() is Standing.WHOLE


# -- who can change it


ATTACKS = [
    "flush ruleset",
    "delete table inet mcencrypt",
    "flush table inet mcencrypt",
    "flush chain inet mcencrypt output-gate",
    "insert rule inet mcencrypt input-gate accept",
    "add chain inet mcencrypt more",
]


@needs_nft
@pytest.mark.parametrize("attack", ATTACKS)
def test_nobody_else_can_change_it_while_its_process_lives(fence: Fence, attack: str) -> None:
    owned(fence)
    nft(attack, check=False)
    assert fence.look() is Standing.WHOLE


@needs_nft
@pytest.mark.parametrize("attack", [*ATTACKS, "delete chain inet mcencrypt output-clear"])
def test_where_anybody_can_change_it_every_change_is_noticed_and_put_right(common: Fence, attack: str) -> None:
    assert common.owner() is None
    if "delete chain" in attack:
        nft("flush chain inet mcencrypt output-clear")
    nft(attack)
    assert common.look() is Standing.BROKEN
    common.install()
    assert common.look() is Standing.WHOLE


def in_child(then: str) -> subprocess.Popen[str]:
    """A process that puts the fence up, says so, and waits to be killed, or goes by itself."""
    code = (
        f"import signal; from mcencrypt.kernel.fence import Fence; fence = Fence({PORTS!r}); fence.install(); "
        f"print('up', flush=True); {then}"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=os.environ | importable()
    )
    assert child.stdout is not None and child.stdout.readline() == "up\n"
    return child


def test_it_outlives_its_process_and_the_next_one_takes_it_over(fence: Fence) -> None:
    owned(fence)
    fence.remove()
    child = in_child("signal.pause()")
    try:
        assert fence.look() is Standing.WHOLE
        with pytest.raises(OperatorError, match=f"belongs to another process .*{child.pid}"):
            fence.install()
        with pytest.raises(OperatorError, match="belongs to another process"):
            fence.remove()
    finally:
        child.send_signal(signal.SIGKILL)
        child.wait()
    assert (fence.look(), fence.owner()) == (Standing.WHOLE, None)
    fence.install()
    assert fence.is_ours
    assert fence.look() is Standing.WHOLE


@needs_nft
def test_one_without_an_owner_can_be_taken_away(fence: Fence) -> None:
    """What docs/security.md says of the time in which no daemon runs."""
    fence.remove()
    in_child("pass").wait()
    assert fence.look() is Standing.WHOLE
    nft("flush ruleset")
    assert fence.look() is Standing.BROKEN


def test_an_older_one_is_replaced_whatever_it_was(common: Fence, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    successor = Fence([1, 2, 3], 0x40)
    successor.install()
    assert successor.look() is Standing.WHOLE
    successor.close()


FLOOD = f"""
import socket, struct
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
p = struct.pack('!HHIIBBHHH', {PORT}, 50000, 1, 1, 0x50, 0x10, 99, 0, 0)
while True:
    try: s.sendto(p, ('192.0.2.2', 0))
    except PermissionError: pass
"""


def test_replacing_it_never_lets_a_packet_pass(fence: Fence) -> None:
    """Other ports, and the next process that takes it over, under a flood of packets without the bit."""
    shell(
        "ip link add name va type veth peer name vb; ip addr add 192.0.2.1/24 dev va;"
        "ip link set va up; ip link set vb up; ip neigh add 192.0.2.2 lladdr 02:00:00:00:00:02 dev va;"
        "iptables -t mangle -A POSTROUTING -o va -p tcp"
    )

    def passed() -> int:
        return int(shell("iptables -t mangle -nvxL POSTROUTING").splitlines()[2].split()[0])

    flood = subprocess.Popen([sys.executable, "-c", FLOOD])
    try:
        wait_for(lambda: fence.dropped() > 0, "packets of the flood")
        for number in range(20):
            fence.with_ports(PORTS if number % 2 else (PORT, 9000))
            fence.install()  # its counters begin anew
            wait_for(lambda: fence.dropped() > 10, "more of them")
        for _ in range(3):
            fence.close()
            fence = Fence(PORTS)
            fence.install()
            assert fence.look() is Standing.WHOLE
            wait_for(lambda fence=fence: fence.dropped() > 10, "more of them")  # type: ignore[misc]
        assert passed() == 0
        fence.remove()
        wait_for(lambda: passed() > 0, "packets that leave")
    finally:
        flood.kill()
        flood.wait()
        fence.close()


# -- what passes


@pytest.fixture
def pair() -> Iterator[Pair]:
    """Two hosts, echo on a P2P port and on another one at b."""
    with direct_pair() as net:
        for port in (PORT, PLAIN_PORT):
            net.b.python("lab.apps", "echo", port).wait_for('"listening"')
        yield net


@contextlib.contextmanager
def up(host: object, mark: int = DEFAULT_MARK) -> Iterator[Fence]:
    with host.enter():  # type: ignore[attr-defined]
        fence = Fence(PORTS, mark)
    fence.install()
    yield fence
    fence.close()


def connects(pair: Pair, port: int, version: int = 4, patience: float = 0.5) -> bool:
    """Whether a from b gets back what it sent. A connection takes well under a millisecond here."""
    with pair.a.socket(socket.AF_INET if version == 4 else socket.AF_INET6) as sock:
        sock.settimeout(patience)
        try:
            sock.connect((pair.b.address(version), port))
            sock.sendall(b"question")
            return sock.recv(100) == b"question"
        except TimeoutError:
            return False


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize("where", ["a", "b"])
def test_only_p2p_ports_are_closed_and_only_as_long_as_it_stands(pair: Pair, version: int, where: str) -> None:
    assert connects(pair, PORT, version)
    with up(getattr(pair, where)) as fence:
        assert not connects(pair, PORT, version)
        assert connects(pair, PLAIN_PORT, version, 5)
        assert fence.dropped() > 0
        fence.remove()
        assert connects(pair, PORT, version, 5)


def test_lo_is_open(pair: Pair) -> None:
    with up(pair.b), pair.b.socket() as sock:
        sock.settimeout(5)
        sock.connect(("127.0.0.1", PORT))
        sock.sendall(b"question")
        assert sock.recv(100) == b"question"


def test_datagrams_on_these_ports_are_nobodys_business(pair: Pair) -> None:
    with up(pair.a), up(pair.b), pair.b.socket(kind=socket.SOCK_DGRAM) as b, pair.a.socket(kind=socket.SOCK_DGRAM) as a:
        b.bind(("", PORT))
        b.settimeout(5)
        a.sendto(b"hello", (pair.b.v4, PORT))
        assert b.recv(100) == b"hello"


@pytest.mark.parametrize("mark", [DEFAULT_MARK, 0x1, 0x80000000])
def test_the_bit_opens_it_and_is_gone_behind_it_and_other_bits_stay(pair: Pair, mark: int) -> None:
    """Others' rules, before and behind: what our iptables rules do, less the queue."""
    others = 0x7FFFFFFE & ~mark
    for host in (pair.a, pair.b):
        for table, chain in (("raw", "OUTPUT"), ("mangle", "INPUT")):
            host.run(["iptables", "-t", table, "-A", chain, "-p", "tcp", "-j", "MARK", "--set-mark", others])
            host.run(["iptables", "-t", table, "-A", chain, "-p", "tcp", "-j", "MARK", "--or-mark", mark])
        for chain in ("OUTPUT", "INPUT"):
            for word, wanted in (("with", mark), ("less", 0)):
                match = ["-m", "mark", "--mark", f"{mark}/{mark}"] if wanted else ["-m", "mark", "--mark", others]
                note = ["-m", "comment", "--comment", f"{word} {chain}"]
                host.run(["iptables", "-t", "filter", "-A", chain, "-p", "tcp", *match, *note])
    with up(pair.a, mark), up(pair.b, mark):
        assert connects(pair, PORT, patience=5)
        for host in (pair.a, pair.b):
            for chain in ("OUTPUT", "INPUT"):
                assert host.rule_packets("filter", f"with {chain}") == 0
                assert host.rule_packets("filter", f"less {chain}") > 0


def test_a_socket_that_sets_the_bit_itself_does_not_get_out(pair: Pair) -> None:
    """SO_MARK, for which newer kernels want CAP_NET_RAW only, or a mark that was inherited."""
    with up(pair.a), pair.a.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, DEFAULT_MARK)
        sock.settimeout(0.5)
        with pytest.raises(TimeoutError):
            sock.connect((pair.b.v4, PORT))


def test_rules_of_others_that_set_the_bit_too_early_let_nothing_in(pair: Pair) -> None:
    pair.b.run(["iptables", "-t", "mangle", "-A", "PREROUTING", "-j", "MARK", "--or-mark", DEFAULT_MARK])
    with up(pair.b):
        assert not connects(pair, PORT)
