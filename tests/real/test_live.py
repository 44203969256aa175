"""Mode and configuration changed while connections live."""

import contextlib
import os
import signal

import pytest

from lab import PATIENCE, LabError, direct_pair, wait_for
from tests.helpers.nodes import PORT, PORTS, needs_lab
from tests.helpers.pairs import encrypted

pytestmark = needs_lab


@contextlib.contextmanager
def echo_pair(**settings):
    """Two nodes; b echoes on every port."""
    with direct_pair() as net, encrypted(net, **settings) as pair:
        for port in PORTS:
            pair.b.python("lab.apps", "echo", port).wait_for('"listening"')
        yield pair


@contextlib.contextmanager
def connected(pair, port=PORT):
    """A connection from a to b that has carried something."""
    with pair.a.socket() as sock:
        sock.settimeout(PATIENCE)
        sock.connect((pair.b.v4, port))
        ask(sock)
        yield sock


def ask(sock, text=b"question"):
    sock.sendall(text)
    got = b""
    while len(got) < len(text):
        more = sock.recv(100)
        assert more, "closed"
        got += more
    assert got == text


def both(pair, *words):
    return [node.mcencrypt(*words) for node in (pair.a, pair.b)]


def test_require_ends_plaintext_once_it_was_named_and_leaves_what_is_encrypted():
    with echo_pair(mode="prefer") as pair:
        both(pair, "off")
        with connected(pair) as plain:
            both(pair, "on")
            with connected(pair) as sealed:
                # idle since before `on`: only the kernel knows of it
                [shown] = pair.a.status()["plaintext_peers"]
                assert shown == {
                    "peer": f"{pair.b.v4}:{PORT}", "local": f"{pair.a.v4}:{plain.getsockname()[1]}", "allowed": False,
                }  # fmt: skip
                with pytest.raises(LabError, match="1 plaintext connection would be cut"):
                    pair.a.mcencrypt("mode", "require")
                ask(plain, b"nothing has happened")
                assert pair.a.status()["mode"] == "prefer"
                assert "1 plaintext connection ended" in pair.a.mcencrypt("mode", "require", "--yes").stdout
                with pytest.raises(ConnectionError):
                    ask(plain)
                ask(sealed, b"untouched")
                assert pair.a.status()["plaintext_peers"] == []
        wait_for(lambda: not pair.b.status()["plaintext_peers"], "b to see the end of it")
        pair.a.restart(signal.SIGTERM)
        status = pair.a.status()
        assert (status["mode"], status["mode_source"]) == ("require", "command")
        assert "as configured" in pair.a.mcencrypt("mode", "--from-config").stdout
        assert pair.a.status()["mode"] == "prefer"


def test_a_reload_touches_nothing_that_is_encrypted_and_a_wrong_one_changes_nothing():
    with echo_pair() as pair, connected(pair) as sealed:
        pair.a.rewrite(mode="prefer", queue_number=1234)
        applied, restart = pair.a.mcencrypt("reload").stdout.splitlines()
        assert applied == "reloaded: mode"
        assert restart.startswith("needs a restart of the daemon: queue_number: ")
        assert pair.a.status()["mode"] == "prefer"
        ask(sealed)
        pair.a.rewrite(mode="strict")
        with pytest.raises(LabError, match=r"the old configuration stays: .*'strict' is not one of"):
            pair.a.mcencrypt("reload")
        os.kill(pair.a.pid, signal.SIGHUP)
        wait_for(lambda: pair.a.log().count("configuration not reloaded, the old one stays") == 2, "the log")
        assert pair.a.status()["mode"] == "prefer"
        pair.a.rewrite(mode="require", queue_number=27971)
        os.kill(pair.a.pid, signal.SIGHUP)
        wait_for(lambda: pair.a.status()["mode"] == "require", "the reload")
        ask(sealed)


def test_a_port_that_is_added_ends_plaintext_there():
    with echo_pair(ports=[PORTS[0]]) as pair, connected(pair) as sealed, connected(pair, PORTS[1]) as plain:
        assert pair.a.status()["plaintext_peers"] == [], "not one of ours yet"
        for node in (pair.a, pair.b):
            node.rewrite(ports=list(PORTS[:2]))
        assert pair.a.mcencrypt("reload").stdout.splitlines() == ["reloaded: ports", "1 plaintext connection ended"]
        with pytest.raises(ConnectionError):
            ask(plain)
        ask(sealed)
        pair.b.mcencrypt("reload")
        with connected(pair, PORTS[1]):
            assert len(pair.a.connections("encrypted")) == 2
        assert pair.a.status()["ports"] == list(PORTS[:2])


def test_a_port_that_is_given_up_resets_what_is_encrypted_there_and_nothing_leaks():
    with echo_pair() as pair, connected(pair) as sealed, connected(pair, PORTS[1]) as leaving:
        pair.a.rewrite(ports=[PORTS[0], PORTS[2]])
        with pair.wire() as wire:
            assert "1 encrypted connection reset" in pair.a.mcencrypt("reload").stdout
            with pytest.raises(ConnectionError):
                ask(leaving, b"confidential")
            ask(sealed)
            wait_for(lambda: len(pair.b.connections("encrypted")) == 1, "b to forget it")
        assert not wire.search([b"confidential"])[b"confidential"]
        assert not any(str(PORTS[1]) in rule for rule in pair.a.rules())
        pair.b.rewrite(ports=[PORTS[0], PORTS[2]])
        pair.b.mcencrypt("reload")
        with connected(pair, PORTS[1]):
            ask(sealed)
            assert len(pair.a.connections("encrypted")) == 1
