"""Connections whose sockets are bound to a device: what the daemon asks of the kernel's socket table finds them too."""

import contextlib
import errno
import socket

import pytest

from lab import direct_pair, wait_for
from mcencrypt.core.table import LOOK_AFTER
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import encrypted

pytestmark = needs_lab


@pytest.fixture(scope="module")
def pair():
    with direct_pair() as net, encrypted(net) as pair:
        pair.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
        yield pair


@contextlib.contextmanager
def bound(pair, version):
    """A connection of a's with a socket that is bound to `eth0`, and has carried something."""
    with pair.a.socket(socket.AF_INET6 if version == 6 else socket.AF_INET) as sock:
        sock.settimeout(10)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, b"eth0")
        sock.connect((pair.b.address(version), PORT))
        ask(sock)
        yield sock


def ask(sock):
    sock.sendall(b"question")
    assert sock.recv(100) == b"question"


def the_end(sock):
    """How a connection ended."""
    with pytest.raises(OSError) as ended:
        sock.recv(100)
    return ended.value.errno


def test_an_idle_one_is_not_forgotten(pair):
    with bound(pair, 4) as four, bound(pair, 6) as six:

        def looked_up():
            return min(one["age"] for one in pair.a.connections("encrypted")) > LOOK_AFTER + 3

        wait_for(looked_up, "a look-up of what is idle", LOOK_AFTER + 20)
        assert len(pair.a.connections("encrypted")) == 2
        for sock in (four, six):
            ask(sock)


@pytest.mark.parametrize("version", [4, 6])
def test_off_now_ends_them(pair, version):
    with bound(pair, version) as sock:
        pair.a.mcencrypt("off", "--now")
        assert the_end(sock) == errno.ECONNABORTED
        wait_for(lambda: not pair.a.rules(), "the rules to go", 5)
    pair.a.mcencrypt("on")


@pytest.mark.parametrize("version", [4, 6])
def test_on_ends_those_in_plaintext(pair, version):
    for node in (pair.a, pair.b):
        node.mcencrypt("off", "--now")
        wait_for(lambda node=node: not node.rules(), "the rules to go", 5)
    with bound(pair, version) as sock:
        pair.a.mcencrypt("on")
        assert the_end(sock) == errno.ECONNABORTED
    pair.b.mcencrypt("on")


@pytest.mark.parametrize("version", [4, 6])
def test_a_restart_ends_them(pair, version):
    with bound(pair, version) as sock:
        pair.a.restart()
        assert the_end(sock) == errno.ECONNABORTED
