"""Packets of strangers at a daemon on the real kernel, and local users who are none of its friends."""

import socket
from struct import pack

import pytest

from lab import direct_pair, wait_for
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
