"""Packets of strangers at a daemon on the real kernel, and local users who are none of its friends."""

import socket
import sys
from struct import pack

import pytest

from lab import direct_pair, transfer, wait_for
from lab.packets import ACK, PSH, SYN
from mcencrypt.core.packet import bare
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import encrypted

pytestmark = needs_lab


@pytest.fixture(scope="module")
def neighbours():
    """Two hosts on one link: b encrypts, a sends what it likes."""
    with direct_pair() as net, encrypted(net) as pair:
        pair.a.mcencrypt("off")
        yield pair


def address(text):
    return socket.inet_pton(socket.AF_INET6 if ":" in text else socket.AF_INET, text)


def connected_to_itself(host, version):
    """Both ends of a connection of a host to its own address."""
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    with host.socket(family) as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.address(version), PORT))
        listening.listen(1)
        one = host.socket(family)
        one.connect((host.address(version), PORT))
        return one, listening.accept()[0]


@pytest.mark.parametrize("version", [4, 6])
def test_packets_with_our_own_address_as_source_end_no_local_connection(neighbours, version):
    """IPv4 drops them as martians; over IPv6 they come in."""
    a, b = neighbours.a, neighbours.b
    dialling, accepted = connected_to_itself(b, version)
    family = socket.AF_INET6 if version == 6 else socket.AF_INET
    own, ports = address(b.address(version)), (dialling.getsockname()[1], PORT)
    forged = 0
    with dialling, accepted, a.socket(family, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        before = b.status()["refused"].get("unknown-connection", 0)
        for one, other in (ports, ports[::-1]):
            for flags in (ACK, ACK | PSH, SYN | ACK):
                packet = bare(own + own + pack("!HH", one, other), 5, 7, flags, 500)
                raw.sendto(packet, (b.address(version), 0))
                forged += 1
        if version == 6:
            wait_for(
                lambda: b.status()["refused"].get("unknown-connection", 0) >= before + forged, "the packets to arrive"
            )
        for sender, reader in ((dialling, accepted), (accepted, dialling)):
            sender.sendall(b"still here")
            reader.settimeout(30)
            assert reader.recv(100) == b"still here"
    assert "a connection from before" not in b.log()


CONNECT_AND_CLOSE = """
import os, socket, sys
os.setuid(65534)
for number in range(int(sys.argv[2])):
    with socket.socket() as one:
        one.setblocking(False)
        one.connect_ex((sys.argv[1], 7331))
print("done", flush=True)
"""


def test_a_local_user_who_dials_and_closes_shuts_nobody_out(neighbours):
    """4096 such attempts, of any user, used to fill the table for 75 s."""
    a, b = neighbours.a, neighbours.b
    a.mcencrypt("on")
    try:
        nobody_there = b.address(4).rpartition(".")[0] + ".99"
        b.spawn([sys.executable, "-c", CONNECT_AND_CLOSE, nobody_there, 6000]).wait_for("done")
        assert transfer(b, a, PORT, size=1000).differences == []
        wait_for(lambda: b.connections("handshake") == [], "the attempts to leave the status", 60)
    finally:
        a.mcencrypt("off", "--now")


def test_a_dial_that_was_given_up_leaves_the_status_at_once(neighbours):
    """The real multichaind dials its own published address every second: each stayed for 75 s."""
    b = neighbours.b
    nobody_there = b.address(4).rpartition(".")[0] + ".98"
    with b.socket() as waits, b.socket() as closed:
        for one in (waits, closed):
            one.setblocking(False)
            one.connect_ex((nobody_there, PORT))
        local = waits.getsockname()[1]
        wait_for(lambda: len(b.connections("handshake")) == 2, "both to be shown")
        closed.close()
        wait_for(lambda: len(b.connections("handshake")) == 1, "one to be gone", 5)
        assert b.connections("handshake")[0]["local"].endswith(f":{local}")
    wait_for(lambda: b.connections("handshake") == [], "the other one to be gone", 5)
