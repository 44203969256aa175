"""On, off, crashes, restarts, and rules that somebody else removes, while nodes are talking."""

import contextlib
import signal

import pytest

from lab import transfer, two_hosts, wait_for
from lab.messages import MAGIC
from mcencrypt.control.client import request
from tests.helpers.nodes import PORT, PORTS, needs_lab
from tests.helpers.pairs import await_again, encrypted, event_count, talking
from tests.helpers.wire import assert_encrypted, plaintext_segments

pytestmark = needs_lab

MARKERS = [b"INVOICE-4711", b"version\0", b"verack\0", b"getdata\0", MAGIC]


@pytest.fixture
def pair(encrypted_pair):
    """Both daemons run and are on."""
    for node in (encrypted_pair.a, encrypted_pair.b):
        if not node.answers():
            node.start()
        request(node.run_dir, "on")
    return encrypted_pair


def both(pair, *words):
    for node in (pair.a, pair.b):
        node.mcencrypt(*words)


@pytest.mark.parametrize("version", [4, 6])
def test_nothing_of_a_conversation_is_on_the_wire(pair, version):
    # resets, which come later, may be late for a router that has seen the connection's end
    before = pair.router.invalid_count()
    with pair.wire() as wire, talking(pair, version) as (a, b):
        for process in (a, b):
            wait_for(lambda process=process: event_count(process, "item") > 5, "items")
    assert pair.router.invalid_count() == before
    assert_encrypted(wire, markers=MARKERS)
    for process in (a, b):
        assert not event_count(process, "garbage")


@pytest.mark.parametrize("version", [4, 6])
def test_on_under_a_live_plaintext_connection(pair, version):
    both(pair, "off")
    with talking(pair, version) as (a, b):
        assert not pair.a.rules() + pair.b.rules()
        with pair.wire() as before:
            # what was published before may have crossed the wire before as well
            earlier = {one["sha256"] for one in a.events() if one["event"] == "published"}
            wait_for(
                lambda: any(one["event"] == "item" and one["sha256"] not in earlier for one in b.events()),
                "an item in plaintext",
            )
        assert before.search(MARKERS)[b"INVOICE-4711"] > 0
        ready = event_count(a, "ready")
        both(pair, "on")
        with pair.wire() as wire:
            refused = await_again(pair, a, ready)
            items = event_count(b, "item")
            wait_for(lambda: event_count(b, "item") > items, "an item")
        assert refused <= 1, "one was under way when b was switched on"
        assert_encrypted(wire, markers=MARKERS)


def test_off_lets_encrypted_connections_finish_and_new_ones_run_in_plaintext(pair):
    with talking(pair) as (a, b):
        ready = event_count(a, "ready")
        both(pair, "off")
        for node in (pair.a, pair.b):
            status = node.status()
            assert (status["enabled"], status["draining"]) == (False, True)
            assert node.rules()
        with pair.wire() as wire:
            assert transfer(pair.a, pair.b, PORTS[1], size=1e6).differences == []
            items = event_count(b, "item")
            wait_for(lambda: event_count(b, "item") > items + 3, "items")
        assert not any(segment.payload.startswith(b"mcen") for segment in wire.segments(PORTS[1]))
        assert wire.search(MARKERS)[b"INVOICE-4711"] == 0
        assert event_count(a, "ready") == ready
    for node in (pair.a, pair.b):
        wait_for(lambda node=node: not node.rules(), "the rules to go with the last connection")
        assert not node.status()["draining"]


def test_off_now_resets(pair):
    with talking(pair) as (a, _):
        ready = event_count(a, "ready")
        both(pair, "off", "--now")
        wait_for(lambda: event_count(a, "ready") > ready, "a plaintext connection")
        assert not pair.a.rules() + pair.b.rules()


def test_rules_are_gone_after_off_however_often_and_whatever_happened(pair):
    node = pair.a
    for words in (("on",), ("on",), ("off",), ("off",)):
        node.mcencrypt(*words)
    assert not node.rules()
    node.mcencrypt("on")
    rules = node.rules()
    node.mcencrypt("on")
    assert node.rules() == rules
    node.kill()
    assert node.rules() == rules
    # with the daemon not running, `on` starts one
    node.mcencrypt("on")
    node.adopt()
    assert node.rules() == rules
    node.kill()
    node.mcencrypt("off")
    assert not node.rules()
    node.start()
    assert not node.status()["enabled"], "as it was left"
    node.mcencrypt("on")
    assert node.rules() == rules


def test_status_tells_by_its_exit_code_whether_a_daemon_answers(pair):
    assert pair.a.mcencrypt("status").returncode == 0
    assert pair.a.mcencrypt("--run-dir", pair.a.directory / "none", "status", check=False).returncode == 1
    assert pair.b.mcencrypt("status", "--json").stdout.startswith("{")


@pytest.mark.parametrize("version", [4, 6])
def test_a_killed_daemon_lets_nothing_out(pair, version):
    with talking(pair, version) as (a, _):
        ready = event_count(a, "ready")
        with pair.wire() as wire:
            pair.a.kill()
            # both ends go on trying to send; a's new connections as well
            pair.a.host.run(["ss", "-K", "dport", "=", str(PORT)])
            wait_for(lambda: event_count(a, "refused") + event_count(a, "reset") > 0, "a to notice")
            with contextlib.suppress(OSError), pair.a.socket() as sock:
                sock.settimeout(1)
                sock.connect((pair.b.v4, PORT))
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)
        assert plaintext_segments(wire, PORT) == 0
        pair.a.start()
        await_again(pair, a, ready)


@pytest.mark.parametrize("items_every", [0.05, 0], ids=["busy", "idle"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("who", ["a", "b"])
def test_both_applications_reconnect_after_a_restart(pair, who, number, items_every):
    with talking(pair, items_every=items_every) as (a, b):
        counts = [event_count(process, "ready") for process in (a, b)]
        node = getattr(pair, who)
        with pair.wire() as wire:
            node.kill(number)
            node.start()
            refused = await_again(pair, a, counts[0])
            wait_for(lambda: event_count(b, "ready") > counts[1], "b to talk again")
            for process in (a, b):
                wait_for(lambda process=process: event_count(process, "reset") > 0, "the old connection's reset")
        assert refused <= 2, "one was under way, and one may be ended with what the daemon before had left"
        assert wire.search(MARKERS) == dict.fromkeys(MARKERS, 0)


def test_several_daemons_each_with_its_own_files(pair):
    with two_hosts() as net, encrypted(net) as other:
        assert transfer(other.a, other.b, PORT, size=1e5).differences == []
        assert transfer(pair.a, pair.b, PORT, size=1e5).differences == []
        identities = {node.status()["identity"] for each in (pair, other) for node in (each.a, each.b)}
        assert len(identities) == 4
