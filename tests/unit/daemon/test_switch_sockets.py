"""What the switch does about ports that change, sockets that go, and attempts that came to nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from mcencrypt.core.engine import CSUM_NOT_READY
from mcencrypt.daemon.switch import DIALS_AT_ONCE, Position
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.iptables import SECONDS
from mcencrypt.kernel.sockets import CannotDestroyError, Tcp
from mcencrypt.store.position import read_ports
from tests.helpers.packets import SYN
from tests.helpers.sides import make
from tests.helpers.switched import OWN, PEER, PORT, Bench

OTHER_PORT = 7331
UP = ["fence up", "rules in"]
STRANGER = bytes((10, 0, 0, 99))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# -- ports


def test_a_port_that_is_given_up_takes_its_connections_along(bench: Bench) -> None:
    bench.bring_to(Position.ON)
    assert bench.kernel.do(bench.switch.take_ports([OTHER_PORT])) == 1
    assert bench.kernel.acts == [f"socket {PORT}-40000 ended", *UP]
    assert bench.switch.ports == bench.kernel.installed == (OTHER_PORT,)
    assert bench.engine.table.encrypted_keys() == []


def test_a_port_that_stays_keeps_its_connections(bench: Bench) -> None:
    bench.bring_to(Position.ON)
    assert bench.kernel.do(bench.switch.take_ports([OTHER_PORT, PORT])) == 0
    assert bench.kernel.acts == UP
    assert bench.engine.table.encrypted_keys() == [bench.encrypted]


@pytest.mark.parametrize("fail", [False, True])
def test_nothing_begins_on_a_port_while_it_is_given_up(bench: Bench, fail: bool) -> None:
    """What did would lose its rules in a moment, and go on in plaintext."""
    bench.bring_to(Position.ON)
    bench.kernel.held = True
    answers: list[object] = []
    bench.kernel.jobs.run(bench.switch.take_ports([OTHER_PORT]), answers.append, answers.append)
    assert not bench.begins(PORT) and bench.begins(OTHER_PORT)
    if fail:
        bench.loop.run(SECONDS)
        assert isinstance(answers[0], OperatorError)
    else:
        bench.kernel.release()
        assert answers == [1]
    assert bench.begins(PORT)


def test_ports_taken_while_off_are_for_the_next_time(bench: Bench) -> None:
    assert bench.kernel.do(bench.switch.take_ports([OTHER_PORT])) == 0
    assert bench.kernel.acts == []
    bench.kernel.do(bench.switch.on())
    assert bench.kernel.installed == (OTHER_PORT,)


def test_ports_that_cannot_be_taken_leave_the_old_ones(bench: Bench) -> None:
    bench.bring_to(Position.ON)
    bench.kernel.refuses = "iptables-restore failed"
    with pytest.raises(OperatorError):
        bench.kernel.do(bench.switch.take_ports([OTHER_PORT]))
    assert bench.switch.ports == (PORT,)


# -- sockets


def test_what_has_no_socket_any_more_is_forgotten_and_the_rest_is_touched(bench: Bench) -> None:
    bench.switch.look_up([bench.encrypted], bench.loop.now())
    assert bench.engine.table.encrypted_keys() == [bench.encrypted]
    bench.end_encrypted()
    bench.switch.look_up([bench.encrypted], bench.loop.now())
    assert bench.engine.table.encrypted_keys() == []


def test_peers_that_are_not_listed_any_more_lose_their_sockets(bench: Bench) -> None:
    bench.bring_to(Position.ON)
    ended = bench.switch.take_policy(replace(bench.switch.policy, listed=frozenset()))
    assert (ended.plaintext, ended.distrusted) == ([], [bench.encrypted])
    assert bench.kernel.acts == [f"socket {PORT}-40000 ended"]


# -- what is remembered for the next start of the system


def test_the_ports_are_remembered_as_they_are_taken(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    assert read_ports(bench.state_dir) == ()
    bench.kernel.do(bench.switch.take_ports([OTHER_PORT]))
    assert read_ports(bench.state_dir) == (), "off, nobody knows whether they are right"
    bench.kernel.do(bench.switch.on())
    assert read_ports(bench.state_dir) == (OTHER_PORT,)
    bench.kernel.do(bench.switch.take_ports([OTHER_PORT, PORT]))
    assert read_ports(bench.state_dir) == (OTHER_PORT, PORT)
    (bench.state_dir / "ports").unlink()
    (bench.state_dir / "ports").mkdir()
    bench.kernel.do(bench.switch.on())
    assert bench.switch.position is Position.ON and "cannot be written" in caplog.text


# -- what strangers name


def test_a_socket_that_a_stranger_named_is_ended(bench: Bench) -> None:
    key = bench.sockets.add(OWN, PORT, STRANGER, 40001)
    assert bench.switch.destroy_suspect(key) is True
    assert bench.kernel.acts == ["socket 8571-40001 ended"]
    assert bench.switch.destroy_suspect(key) is False, "there is none any more"


@pytest.mark.parametrize("state", [Tcp.ESTABLISHED, Tcp.CLOSE_WAIT, Tcp.TIME_WAIT])
def test_a_connection_between_two_sockets_of_this_host_is_not(bench: Bench, state: Tcp) -> None:
    """Whoever writes our own address into a packet's source names one that no packet from the network belongs to."""
    key = bench.sockets.add(OWN, PORT, OWN, 40001)
    bench.sockets.add(OWN, 40001, OWN, PORT, state)
    assert bench.switch.destroy_suspect(key) is False
    assert bench.kernel.acts == []


def test_a_suspect_that_the_kernel_does_not_let_go_is_not_reported(bench: Bench) -> None:
    key = bench.sockets.add(OWN, PORT, STRANGER, 40001)
    bench.sockets.problem = CannotDestroyError("not this kernel")
    assert bench.switch.destroy_suspect(key) is False


# -- attempts of our own


def dials(bench: Bench, port: int) -> bytes:
    """Our socket dials; the connection's key."""
    syn = make((OWN, port), (PEER, PORT), 1000, 0, SYN)
    assert isinstance(bench.engine.egress(syn.build(), CSUM_NOT_READY, bench.loop.now()), bytes)
    return OWN + PEER + port.to_bytes(2, "big") + PORT.to_bytes(2, "big")


def test_attempts_whose_socket_is_gone_are_forgotten(bench: Bench) -> None:
    bench.bring_to(Position.ON)
    keys = [dials(bench, port) for port in range(50000, 50010)]
    for port in range(50000, 50003):
        bench.sockets.add(OWN, port, PEER, PORT, Tcp.SYN_SENT)
    bench.sockets.add(OWN, 50003, PEER, PORT, Tcp.ESTABLISHED)
    bench.switch.look_up_dials(begun_before=bench.loop.now())
    assert list(bench.engine.admission.dialling) == keys, "they have only just begun"
    bench.switch.look_up_dials(begun_before=bench.loop.now() + 1)
    assert list(bench.engine.admission.dialling) == keys[:4]


def test_many_that_are_gone_are_forgotten_a_few_at_a_time(bench: Bench) -> None:
    bench.bring_to(Position.ON)
    for port in range(20000, 20000 + DIALS_AT_ONCE + 10):
        dials(bench, port)
    for left in (10, 0):
        bench.switch.look_up_dials(begun_before=bench.loop.now() + 1)
        assert len(bench.engine.admission.dialling) == left
