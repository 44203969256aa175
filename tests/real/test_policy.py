"""Peers without mcencrypt, and with another key: refused, allowed, named."""

import contextlib
import errno
import os
import select
import socket

import pytest

from lab import PATIENCE, direct_pair, transfer, wait_for
from mcencrypt.store.keys import create_network_key
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import encrypted
from tests.helpers.wire import assert_encrypted

pytestmark = needs_lab


@contextlib.contextmanager
def with_plain_peer(**settings):
    """Node a with these settings; on host b, mcencrypt is switched off."""
    with direct_pair() as net, encrypted(net, a=settings) as pair:
        pair.b.mcencrypt("off")
        assert not pair.b.rules()
        yield pair


@contextlib.contextmanager
def dialling(node, address):
    """A socket that dials, and does not wait for the answer."""
    with node.socket(family=10 if ":" in address else 2) as sock:
        sock.setblocking(False)
        assert sock.connect_ex((address, PORT)) == errno.EINPROGRESS
        yield sock


def established(sock, seconds=PATIENCE):
    """Whether it has been within `seconds`. Raises what connect() would."""
    if not select.select([], [sock], [], seconds)[1]:
        return False
    if problem := sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(problem, os.strerror(problem))
    return True


@pytest.mark.parametrize("version", [4, 6])
def test_require_gives_a_stranger_no_answer_at_all(version):
    with with_plain_peer() as pair:
        listening = pair.a.python("lab.apps", "echo", PORT)
        listening.wait_for('"listening"')
        with pair.wire() as wire, dialling(pair.b, pair.a.address(version)) as sock:
            # the SYN, and the SYN again
            wait_for(lambda: pair.a.status()["refused"].get("not-a-handshake", 0) >= 2, "two attempts")
            assert not established(sock, 0.1)
        assert sum(segment.destination_port == PORT for segment in wire.segments(PORT)) >= 2
        assert not [segment for segment in wire.segments(PORT) if segment.source_port == PORT]


@pytest.mark.parametrize("version", [4, 6])
def test_require_lets_no_connection_to_a_stranger_stand(version):
    with with_plain_peer() as pair:
        pair.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
        dialled = dialling(pair.a, pair.b.address(version))
        with pair.wire() as wire, dialled as sock, pytest.raises(ConnectionError):
            assert established(sock), "what answers may be a relay"
            sock.settimeout(20)
            sock.sendall(b"secret")
            sock.recv(10)
        said = b"".join(segment.payload for segment in wire.segments(PORT) if segment.destination_port == PORT)
        assert said.startswith(b"mcen") and b"secret" not in said


@pytest.mark.parametrize("version", [4, 6])
@pytest.mark.parametrize(
    "settings",
    [{"mode": "prefer"}, {"allow_plaintext": ["10.66.0.2", "fd66::/64"]}],
    ids=["prefer", "allow_plaintext"],
)
def test_plaintext_where_the_policy_allows_it(version, settings):
    with with_plain_peer(**settings) as pair:
        for one, other in ((pair.a, pair.b), (pair.b, pair.a)):
            assert transfer(one, other, PORT, version=version, size=1e6).differences == []
        echo = pair.b.python("lab.apps", "echo", PORT)
        echo.wait_for('"listening"')
        with pair.a.socket(family=10 if version == 6 else 2) as sock:
            sock.connect((pair.b.address(version), PORT))
            sock.sendall(b"x")
            assert sock.recv(10) == b"x"
            [shown] = [one for one in pair.a.connections("plaintext") if one["peer"].endswith(f":{PORT}")][-1:]
            assert (shown["bytes_out"], shown["bytes_in"], shown["identity"]) == (1, 1, None)
        assert not pair.a.status()["totals"]["connections"]
        assert "connection in plaintext" in pair.a.log()


def test_allowed_addresses_are_no_door_for_others():
    with with_plain_peer(allow_plaintext=["10.66.0.9/32", "fd66::/64"]) as pair:
        pair.a.python("lab.apps", "echo", PORT).wait_for('"listening"')
        with dialling(pair.b, pair.a.v4) as sock:
            wait_for(lambda: pair.a.status()["refused"].get("not-a-handshake", 0) >= 2, "two attempts")
            assert not established(sock, 0.1)
        with dialling(pair.b, pair.a.v6) as sock:
            assert established(sock)


@pytest.mark.parametrize("modes", [("prefer", "prefer"), ("prefer", "require"), ("require", "prefer")])
def test_two_that_can_encrypt_do(modes):
    with direct_pair() as net, encrypted(net, a={"mode": modes[0]}, b={"mode": modes[1]}) as pair:
        with pair.wire() as wire:
            assert transfer(pair.a, pair.b, PORT, size=1e6).differences == []
        assert_encrypted(wire)
        for node in (pair.a, pair.b):
            assert node.status()["totals"]["connections"] == 1
            assert not node.connections("plaintext")


def test_a_peer_with_another_key_is_named_by_its_id():
    with direct_pair() as net:
        key = net.lab.directory / "other.key"
        create_network_key(key)
        with encrypted(net, b={"network_key": key}) as pair:
            ids = [node.status()["key_id"] for node in (pair.a, pair.b)]
            assert ids[0] != ids[1]
            pair.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
            with pair.wire() as wire, dialling(pair.a, pair.b.v4) as sock:
                wait_for(lambda: pair.b.status()["refused"].get("wrong-key", 0) >= 1, "a refusal")
                assert not established(sock, 0.1)
            assert not [segment for segment in wire.segments(PORT) if segment.source_port == PORT]
            wait_for(lambda: ids[0] in pair.b.log(), "b to name a's key")


def test_a_connection_from_before_is_left_under_prefer_and_ended_under_require():
    for mode in ("prefer", "require"):
        with direct_pair() as net, encrypted(net, mode=mode) as pair:
            for node in (pair.a, pair.b):
                node.mcencrypt("off")
            pair.b.python("lab.apps", "echo", PORT).wait_for('"listening"')
            with pair.a.socket() as sock:
                sock.settimeout(PATIENCE)
                sock.connect((pair.b.v4, PORT))
                sock.sendall(b"before")
                assert sock.recv(100) == b"before"
                for node in (pair.a, pair.b):
                    node.mcencrypt("on")
                if mode == "prefer":
                    sock.sendall(b"after")
                    assert sock.recv(100) == b"after"
                else:
                    with pytest.raises(ConnectionError):
                        sock.recv(100)
