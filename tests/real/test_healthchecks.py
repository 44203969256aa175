"""Health checks from addresses in `probes`: as a kubelet and a load balancer make them, against real kernels."""

from __future__ import annotations

import contextlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

import pytest

from lab import direct_pair, transfer, wait_for
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import EncryptedPair, encrypted
from tests.helpers.scraped import ADDRESS, samples, scrape

pytestmark = needs_lab

#: Where host b is, whose mcencrypt is off, so that it connects as any program does.
PROBER = ["10.66.0.2", "fd66::2"]


@contextlib.contextmanager
def checked(**settings: Any) -> Iterator[EncryptedPair]:
    given = {"probes": PROBER, "metrics_listen": ADDRESS} | settings
    with direct_pair() as net, encrypted(net, a=given) as pair:
        pair.b.mcencrypt("off")
        yield pair


def connect(pair: EncryptedPair, version: int) -> socket.socket:
    sock = pair.b.socket(family=socket.AF_INET6 if version == 6 else socket.AF_INET)
    sock.settimeout(20)
    sock.connect((pair.a.address(version), PORT))
    return sock


def payloads(wire: Any) -> bytes:
    return b"".join(segment.payload for segment in wire.segments(PORT))


@pytest.mark.parametrize("version", [4, 6])
def test_connect_and_close_as_a_kubelet_does(version: int) -> None:
    with checked() as pair, pair.wire() as wire:
        pair.a.python("lab.apps", "echo", PORT).wait_for('"listening"')
        for linger in (None, struct.pack("ii", 1, 1), struct.pack("ii", 1, 0)):  # Go's default, kubelet's, a reset
            with connect(pair, version) as sock:
                if linger:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        wait_for(lambda: not pair.a.connections("health-check"), "all to be gone from status")
        found = samples(scrape(pair.a))
        assert found["mcencrypt_health_checks_total"] == 3
        assert not any(value for name, value in found.items() if "plaintext_connections" in name or "/in_plain" in name)
        assert not any(pair.a.status()["refused"].values())
        assert not pair.a.status()["plaintext_peers"]
        assert "WARNING" not in pair.a.log(), pair.a.log()
        assert payloads(wire) == b""


@pytest.mark.parametrize("version", [4, 6])
def test_connect_and_hold(version: int) -> None:
    with checked() as pair:
        pair.a.python("lab.apps", "echo", PORT).wait_for('"listening"')
        with connect(pair, version) as sock:
            (shown,) = pair.a.connections("health-check")
            assert shown["identity"] is None and shown["carrier"] is None
            pair.a.mcencrypt("reload")
            pair.a.mcencrypt("status", "--check")
            assert pair.a.connections("health-check"), "a reload that changes nothing ends nothing"
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0
            assert samples(scrape(pair.a))["mcencrypt_connections/health-check"] == 1
            pair.a.rewrite(probes=[])
            pair.a.mcencrypt("reload")
            with pytest.raises(ConnectionError):
                sock.recv(1)
        with pytest.raises(TimeoutError), pair.b.socket() as late:
            late.settimeout(0.5)
            late.connect((pair.a.v4, PORT))


@pytest.mark.parametrize("version", [4, 6])
def test_connect_and_send_gets_a_reset_and_the_application_nothing(version: int) -> None:
    with checked() as pair, pair.wire() as wire:
        echo = pair.a.python("lab.apps", "echo", PORT)
        echo.wait_for('"listening"')
        with connect(pair, version) as sock, pytest.raises(ConnectionError):
            sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
            sock.recv(1)
        assert pair.a.status()["refused"]["health-check-data"] >= 1
        assert "in `probes` and sends data" in pair.a.log()
        assert b"".join(s.payload for s in wire.segments(PORT) if s.source_port == PORT) == b""


@pytest.mark.parametrize("version", [4, 6])
def test_an_application_that_speaks_first_is_not_heard(version: int) -> None:
    with checked() as pair, pair.wire() as wire:
        family = socket.AF_INET6 if version == 6 else socket.AF_INET
        with pair.a.socket(family=family) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((pair.a.address(version), PORT))
            listener.listen()
            with connect(pair, version) as sock:
                accepted, _ = listener.accept()
                with accepted:
                    accepted.sendall(b"confidential")
                    with pytest.raises(ConnectionError):
                        sock.recv(1)
                    accepted.settimeout(20)
                    with pytest.raises(ConnectionError):
                        accepted.recv(1)
        assert payloads(wire) == b""


def test_a_peer_there_is_encrypted_all_the_same() -> None:
    with checked() as pair:
        pair.b.mcencrypt("on")
        assert transfer(pair.a, pair.b, PORT, size=1e6).differences == []
        assert transfer(pair.b, pair.a, PORT, size=1e6).differences == []
        assert pair.a.status()["totals"]["connections"] == 2
        assert samples(scrape(pair.a))["mcencrypt_health_checks_total"] == 0


def test_nothing_listening_is_refused_as_a_check_wants_it() -> None:
    with checked() as pair, pytest.raises(ConnectionRefusedError):
        connect(pair, 4)
