"""Verify on the real kernel: encrypted traffic passes, one plaintext connection fails, on clean and on bad paths."""

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import struct
import subprocess
import sys
import termios
import threading

import pytest

from lab import PATIENCE, LabError, interrupted_pair, transfer, wait_for
from lab.behaviours import Chain, Drop, Duplicate, Reorder, Split
from lab.middlebox import passing
from lab.nursery import importable
from tests.helpers.nodes import PORT, PORTS, needs_lab
from tests.helpers.pairs import encrypted, event_count, talking

pytestmark = needs_lab


@pytest.fixture(scope="module")
def pair():
    with interrupted_pair() as net, encrypted(net, b={"allow_plaintext": ["10.66.0.77"]}) as made:
        yield made


@contextlib.contextmanager
def verifying(node, *words):
    """Run `verify` beside what happens in the context, and interrupt it then; gives a list that gets (exit status,
    report)."""
    outcome = []
    process = node.host.spawn(node._words("verify", "--json", "--seconds", 300, *words), env=node._env)

    def capturing():
        # besides its head the table has a line for each packet socket of the namespace; 0003: it takes all protocols
        with node.host.enter(), open("/proc/thread-self/net/packet") as table:
            return any(line.split()[3] == "0003" for line in table.readlines()[1:])

    try:
        wait_for(lambda: process.exit_code is not None or capturing(), "the capture to begin")
        yield outcome
        process.signal(signal.SIGINT)
        process.wait()
        text = process.output()
        assert text.startswith("{"), text
        outcome.append((process.exit_code, json.loads(text)))
    finally:
        process.stop()


def unacknowledged(sock):
    """Bytes of a TCP socket that the peer has yet to acknowledge (SIOCOUTQ, tcp(7))."""
    return struct.unpack("i", fcntl.ioctl(sock, termios.TIOCOUTQ, bytes(4)))[0]


@pytest.mark.parametrize("version", [4, 6])
def test_encrypted_traffic(pair, version):
    with verifying(pair.a) as found:
        assert transfer(pair.a, pair.b, PORT, version=version, size=3e6).differences == []
    status, report = found[0]
    assert status == 0 and report["verdict"] == "encrypted" and report["complete"], report
    assert report["counts"]["encrypted"] >= 1 and report["handshake_messages"] >= 2
    assert report["daemon"]["records_out"] > 0 and report["daemon"]["auth_failures"] == 0
    named = report["connections"][0]
    assert named["peer"] == (f"[{pair.b.v6}]:{PORT}" if version == 6 else f"{pair.b.v4}:{PORT}")
    assert named["encrypted_bytes"] >= 3_000_000 and named["unencrypted_bytes"] == 0


def test_connections_that_began_before(pair):
    with talking(pair) as (_, b), verifying(pair.b) as found:
        before = event_count(b, "item")
        wait_for(lambda: event_count(b, "item") > before + 10, "items to pass")
    status, report = found[0]
    assert status == 0 and report["mid_stream"] >= 1 and report["records"] >= 10, report


def test_a_bulk_transfer_that_began_before_under_loss_and_reordering(pair):
    """Batches, fragments of records, retransmissions, and the start in the middle of it."""
    dice = random.Random(5)
    losing = (Split(0.05, dice=dice), Drop(0.01, dice=dice), Reorder(0.05, dice=dice), Duplicate(0.02, dice=dice))
    pair.box.behaviour = Chain(*losing)
    stop, arrived = threading.Event(), []
    try:
        with pair.b.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((pair.b.v4, PORTS[1]))
            listener.listen()
            with pair.a.socket() as sock:
                sock.connect((pair.b.v4, PORTS[1]))
                reader = listener.accept()[0]

                def write():
                    data = random.Random(1).randbytes(100_000)
                    with contextlib.suppress(OSError):
                        while not stop.is_set():
                            sock.sendall(data)

                def read():
                    with contextlib.suppress(OSError):
                        while data := reader.recv(1 << 20):
                            arrived.append(len(data))

                threads = [threading.Thread(target=target, daemon=True) for target in (write, read)]
                for thread in threads:
                    thread.start()
                with verifying(pair.b) as at_b, verifying(pair.a) as at_a:
                    before = sum(arrived)
                    wait_for(lambda: sum(arrived) > before + 2e6, "data to pass")
                stop.set()
                reader.close()
    finally:
        stop.set()
        pair.box.behaviour = passing
    for status, report in (at_a[0], at_b[0]):
        assert status == 0 and report["verdict"] == "encrypted", json.dumps(report)
        assert report["records"] > 100
        [one] = report["connections"]
        assert one["unencrypted_bytes"] == 0 and not one["from_start"]


def test_one_plaintext_connection_fails_and_is_named(pair):
    """On a port that the daemons do not take, and that verify is told to watch, beside encrypted connections."""
    with talking(pair):
        echo = pair.b.python("lab.node", "--name", "leak", "--listen", 9555)
        echo.wait_for('"listening"')
        with verifying(pair.a, "--port", PORT, "--port", 9555) as found:
            dialling = pair.a.python("lab.node", "--name", "d", "--connect", f"{pair.b.v4}:9555")
            dialling.wait_for('"ready"')
        dialling.stop()
        echo.stop()
    status, report = found[0]
    assert status == 1 and report["verdict"] == "plaintext", report
    assert report["counts"]["encrypted"] >= 1
    [leak] = [one for one in report["connections"] if one["kind"] == "plaintext"]
    assert leak["peer"] == f"{pair.b.v4}:9555" and leak["unencrypted_bytes"] >= 139 and "message" in leak["detail"]
    # the same, as a person reads it
    words = pair.a.mcencrypt("verify", "--seconds", 0.2, check=False)
    assert words.returncode == 1 and "nothing is proven" in words.stdout


def test_a_peer_that_may_be_in_plaintext(pair):
    """b allows 10.66.0.77, an address that a gets; a is off there."""
    pair.lab.assign(pair.a.host, "eth0", "10.66.0.77/24")
    serving = pair.b.python("lab.node", "--name", "b", "--listen", PORT)
    serving.wait_for('"listening"')
    pair.a.mcencrypt("off", "--now")
    try:
        for words, expected in (((), "allowed plaintext only"), (("--strict",), "allowed plaintext only")):
            with verifying(pair.b, *words) as found, pair.a.socket() as sock:
                sock.bind(("10.66.0.77", 0))
                sock.settimeout(PATIENCE)
                sock.connect((pair.b.v4, PORT))
                sock.sendall(b"\xf4\xfe\xf8\xe1version\0\0\0\0\0" + bytes(8))
                wait_for(lambda sock=sock: not unacknowledged(sock), "b to have it")
            status, report = found[0]
            assert report["verdict"] == expected and status == 1, report
            assert report["counts"]["allowed"] == 1
    finally:
        pair.a.mcencrypt("on")
        serving.stop()


def test_a_vlan_and_its_parent(pair):
    """Tagged frames are seen on both interfaces, with and without the tag; neither confuses."""
    try:
        pair.a.ip("link", "add", "link", "eth0", "name", "try", "type", "vlan", "id", 9)
    except LabError:
        pytest.skip("this kernel has no VLANs (module 8021q)")
    pair.a.ip("link", "delete", "try")
    for node, last in ((pair.a, 1), (pair.b, 2)):
        node.ip("link", "add", "link", "eth0", "name", "eth0.5", "type", "vlan", "id", 5)
        node.ip("address", "add", f"10.67.0.{last}/24", "dev", "eth0.5")
        node.ip("link", "set", "eth0.5", "up")
    try:
        pair.b.python("lab.apps", "echo", PORTS[2]).wait_for('"listening"')
        for offload in ("on", "off"):
            pair.a.run(["ethtool", "-K", "eth0", "txvlan", offload])
            with verifying(pair.a) as found, pair.a.socket() as sock:
                sock.settimeout(PATIENCE)
                sock.connect(("10.67.0.2", PORTS[2]))
                sock.sendall(b"x" * 5000)
                got = b""
                while len(got) < 5000:
                    got += sock.recv(5000)
            status, report = found[0]
            assert status == 0 and report["complete"] and report["records"] >= 8, report
    finally:
        for node in (pair.a, pair.b):
            node.ip("link", "delete", "eth0.5")


def test_what_is_too_much_is_counted(pair):
    """A capture that does not read: the kernel drops, says how many, and the verdict is not complete."""
    code = (
        "import sys, time\nfrom mcencrypt.reading import tap as taps\nfrom mcencrypt.reading.judge import Judge\n"
        "taps.BUFFER = 4096\ntap = taps.Tap([int(sys.argv[1])])\nprint('open', flush=True)\nsys.stdin.read()\n"
        "import json\njudge = Judge([int(sys.argv[1])], [], [])\ntap.stop()\njudge.feed(tap.rest())\n"
        "out = judge.finish(1, tap.packets, tap.dropped, tap.oddities)\n"
        "print(json.dumps({'dropped': out.dropped, 'complete': out.complete, 'verdict': out.verdict}))\n"
    )
    with pair.a.host.enter():
        lazy = subprocess.Popen(
            [sys.executable, "-c", code, str(PORT)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=os.environ | importable(),
        )
    assert lazy.stdout.readline() == "open\n"
    assert transfer(pair.a, pair.b, PORT, size=3e6).differences == []
    out, _ = lazy.communicate(timeout=PATIENCE)
    report = json.loads(out)
    assert report["dropped"] > 10 and not report["complete"], report
