"""On, draining, off: a real engine with one encrypted connection, over rules and sockets that only play."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network
from pathlib import Path

import pytest

from mcencrypt.daemon.guard import LOOK_EVERY_ANNOUNCED
from mcencrypt.daemon.switch import DRAIN_EVERY, MOVES, Cause, Position
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.iptables import SECONDS
from mcencrypt.kernel.sockets import CannotDestroyError, Tcp
from mcencrypt.store.position import read_switch, write_switch
from tests.helpers.switched import OWN, PEER, PORT, Bench

UP, AWAY = ["fence up", "rules in"], ["rules out", "fence away"]
STRANGER = bytes((10, 0, 0, 99))


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


# -- moves


@pytest.mark.parametrize(("position", "cause"), list(MOVES), ids=lambda word: word.name)
def test_every_move_leads_where_the_table_says(bench: Bench, position: Position, cause: Cause) -> None:
    bench.bring_to(position)
    bench.cause(cause)
    target = MOVES[position, cause].target
    assert bench.switch.position is target
    assert bench.engine.policy.enabled is (target is Position.ON)
    assert (bench.kernel.installed is None) is (target is Position.OFF)


def test_an_operator_can_do_both_in_every_position() -> None:
    for position in Position:
        assert {cause for at, cause in MOVES if at is position} >= {Cause.ON, Cause.OFF}


def test_both_commands_are_remembered(bench: Bench) -> None:
    bench.kernel.do(bench.switch.on())
    assert read_switch(bench.state_dir)
    bench.kernel.do(bench.switch.off(now=False))
    assert not read_switch(bench.state_dir)


# -- start


def test_a_daemon_starts_on_unless_it_was_switched_off(bench: Bench) -> None:
    bench.kernel.do(bench.switch.start())
    assert bench.switch.position is Position.ON


def test_a_daemon_that_was_switched_off_takes_out_what_is_left(bench: Bench) -> None:
    write_switch(bench.state_dir, False)
    bench.kernel.installed = (PORT,)
    bench.kernel.do(bench.switch.start())
    assert bench.switch.position is Position.OFF
    assert not bench.engine.policy.enabled
    assert bench.kernel.installed is None


@pytest.mark.parametrize("on", [True, False])
def test_what_a_dead_daemon_had_encrypted_ends_before_anything_else(bench: Bench, on: bool) -> None:
    write_switch(bench.state_dir, on)
    bench.kernel.installed = bench.kernel.fenced = (PORT,)
    bench.switch.end([bench.encrypted])
    bench.kernel.do(bench.switch.start())
    assert bench.kernel.acts == [f"socket {PORT}-40000 ended", *(UP if on else AWAY)]


# -- on


def test_on_ends_plaintext_after_the_rules_are_in(bench: Bench) -> None:
    plain = bench.sockets.add(OWN, 50000, STRANGER, PORT)
    bench.kernel.do(bench.switch.on())
    assert bench.kernel.acts == [*UP, f"socket 50000-{PORT} ended"]
    assert bench.engine.table.encrypted_keys() == [bench.encrypted]
    assert plain not in bench.switch.plaintext()


def test_on_leaves_what_may_be_in_plaintext(bench: Bench) -> None:
    bench.switch.take_policy(replace(bench.switch.policy, allow_plaintext=(ip_network("10.0.0.99/32"),)))
    plain = bench.sockets.add(OWN, 50000, STRANGER, PORT)
    bench.kernel.do(bench.switch.on())
    assert bench.kernel.acts == UP
    assert bench.switch.plaintext() == [plain]


def test_a_health_check_is_no_plaintext_and_ends_when_its_address_is_not_named_any_more(bench: Bench) -> None:
    bench.kernel.do(bench.switch.on())
    bench.switch.take_policy(replace(bench.switch.policy, probes=(ip_network("10.0.0.99/32"),)))
    key = bench.sockets.add(OWN, PORT, STRANGER, 50000)
    bench.engine.table.begin_check(key, 1, 0.0)
    bench.kernel.acts.clear()
    assert bench.switch.plaintext() == []
    assert bench.switch.take_policy(bench.switch.policy).plaintext == [] and bench.kernel.acts == []
    bench.switch.take_policy(replace(bench.switch.policy, probes=()))
    assert bench.kernel.acts == [f"socket {PORT}-50000 ended"] and not bench.engine.table.checks


def test_connections_that_never_leave_this_host_are_not_plaintext(bench: Bench) -> None:
    bench.sockets.add(bytes((127, 0, 0, 1)), 50000, bytes((127, 0, 0, 1)), PORT)
    bench.sockets.add(OWN, 50001, OWN, PORT)
    bench.sockets.add(OWN, 50002, STRANGER, PORT)  # STRANGER is ours as well: its end of this is here
    bench.sockets.add(STRANGER, PORT, OWN, 50002)
    bench.sockets.add(OWN, 50003, STRANGER, PORT, Tcp.TIME_WAIT)
    bench.sockets.add(OWN, 50004, STRANGER, PORT, Tcp.SYN_SENT)
    assert bench.switch.plaintext() == []


def test_rules_that_do_not_go_in_leave_it_off(bench: Bench) -> None:
    write_switch(bench.state_dir, False)
    bench.kernel.refuses = "iptables-restore failed"
    with pytest.raises(OperatorError):
        bench.kernel.do(bench.switch.on())
    assert bench.switch.position is Position.OFF
    assert not bench.engine.policy.enabled
    assert not read_switch(bench.state_dir)


def test_a_socket_that_cannot_be_ended_is_logged_and_the_others_are(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    bench.sockets.add(OWN, 50000, STRANGER, PORT)
    for problem in (CannotDestroyError("the kernel cannot destroy sockets"), OSError(1, "Operation not permitted")):
        bench.sockets.problem = problem
        bench.kernel.do(bench.switch.on())
        bench.kernel.do(bench.switch.off(now=False))
    assert "the kernel cannot destroy sockets" in caplog.text
    assert "a socket could not be ended" in caplog.text


# -- off


def test_off_waits_for_the_last_encrypted_connection(bench: Bench) -> None:
    bench.bring_to(Position.ON)
    assert bench.kernel.do(bench.switch.off(now=False)) == 1
    bench.loop.run(20 * DRAIN_EVERY)
    assert bench.switch.position is Position.DRAINING
    assert bench.kernel.installed == (PORT,)
    bench.end_encrypted()
    bench.loop.run(DRAIN_EVERY)
    assert bench.switch.position is Position.OFF
    assert bench.kernel.installed is None
    assert bench.engine.table.encrypted_keys() == []


def test_off_now_resets_first_and_takes_the_rules_out_last(bench: Bench) -> None:
    bench.bring_to(Position.ON)
    assert bench.kernel.do(bench.switch.off(now=True)) == 0
    assert bench.kernel.acts == [f"socket {PORT}-40000 ended", *AWAY]
    assert bench.switch.position is Position.OFF


def test_off_now_while_draining_resets_what_is_left(bench: Bench) -> None:
    bench.bring_to(Position.DRAINING)
    assert bench.kernel.do(bench.switch.off(now=True)) == 0
    assert bench.switch.position is Position.OFF


@pytest.mark.parametrize("state", [Tcp.TIME_WAIT, Tcp.CLOSE])
def test_a_socket_that_only_lingers_is_not_waited_for(bench: Bench, state: Tcp) -> None:
    bench.bring_to(Position.ON)
    bench.end_encrypted()
    bench.sockets.add(OWN, PORT, PEER, 40000, state)
    assert bench.kernel.do(bench.switch.off(now=False)) == 0


def test_off_and_on_again_and_off_does_not_multiply_the_looks(bench: Bench) -> None:
    bench.bring_to(Position.ON)
    before = bench.loop.pending()
    for _ in range(5):
        bench.kernel.do(bench.switch.off(now=False))
        bench.kernel.do(bench.switch.off(now=False))
        bench.kernel.do(bench.switch.on())
    assert bench.loop.pending() == before + 1
    bench.loop.run(DRAIN_EVERY)
    assert bench.switch.position is Position.ON
    assert bench.loop.pending() == before


def test_rules_that_do_not_go_out_are_tried_again(bench: Bench, caplog: pytest.LogCaptureFixture) -> None:
    bench.bring_to(Position.DRAINING)
    bench.end_encrypted()
    bench.kernel.refuses = "another program holds the xtables lock"
    bench.loop.run(DRAIN_EVERY)
    assert "xtables lock" in caplog.text
    assert bench.switch.position is Position.DRAINING
    bench.kernel.refuses = ""
    bench.loop.run(DRAIN_EVERY)
    assert bench.switch.position is Position.OFF


# -- rules that another program holds up


def test_what_has_to_wait_for_the_rules_is_done_in_its_turn(bench: Bench) -> None:
    bench.kernel.held = True
    answers: list[object] = []
    for steps in (bench.switch.on(), bench.switch.off(now=False), bench.switch.on()):
        bench.kernel.jobs.run(steps, answers.append, answers.append)
    bench.loop.run(1)
    assert (answers, bench.switch.position) == ([], Position.OFF)
    bench.kernel.release()
    assert answers == [None, 1, None]
    assert bench.switch.position is Position.ON


def test_what_waits_too_long_fails_and_the_next_has_its_turn(bench: Bench) -> None:
    write_switch(bench.state_dir, False)
    bench.kernel.held = True
    answers: list[object] = []
    for _ in range(2):
        bench.kernel.jobs.run(bench.switch.on(), answers.append, answers.append)
    bench.loop.run(SECONDS)
    assert ["not done in time" in str(answer) for answer in answers] == [True]
    assert bench.switch.position is Position.OFF and not read_switch(bench.state_dir)
    bench.kernel.release()
    assert answers[1:] == [None]
    assert bench.switch.position is Position.ON


def test_draining_ends_in_its_turn_and_not_twice(bench: Bench) -> None:
    bench.bring_to(Position.DRAINING)
    bench.kernel.held = True
    bench.end_encrypted()
    bench.loop.run(20 * DRAIN_EVERY)
    answers: list[object] = []
    bench.kernel.jobs.run(bench.switch.on(), answers.append, answers.append)
    bench.kernel.release()
    assert answers == [None]
    assert bench.kernel.acts == [*AWAY, *UP]
    assert bench.switch.position is Position.ON


def test_no_attempt_becomes_a_connection_while_the_rules_are_taken_out(bench: Bench) -> None:
    """It would go on in plaintext, in the middle of a stream."""
    bench.bring_to(Position.ON)
    assert bench.begins(PORT)
    assert list(bench.engine.admission.keys())
    bench.kernel.do(bench.switch.off(now=False))
    bench.kernel.held = True
    bench.end_encrypted()
    bench.loop.run(DRAIN_EVERY)
    assert bench.kernel.acts == [] and not list(bench.engine.admission.keys())
    bench.kernel.release()
    assert bench.switch.position is Position.OFF


# -- rules lost


@pytest.mark.parametrize("position", [Position.ON, Position.DRAINING])
def test_rules_lost_behind_the_fence_cost_no_connection(bench: Bench, position: Position) -> None:
    bench.bring_to(position)
    bench.kernel.flush()
    bench.kernel.look()
    bench.loop.run()
    assert bench.kernel.acts == UP
    assert bench.engine.table.encrypted_keys() == [bench.encrypted]


@pytest.mark.parametrize("position", [Position.ON, Position.DRAINING])
def test_rules_and_fence_lost_end_what_is_encrypted_before_the_rules_come_back(
    bench: Bench, position: Position
) -> None:
    bench.bring_to(position)
    bench.kernel.flush(fence=True)
    bench.kernel.look()
    assert bench.kernel.acts == ["fence up", f"socket {PORT}-40000 ended", *UP]
    assert bench.switch.guard.rules_lost == 1
    assert bench.engine.table.encrypted_keys() == []
    assert [one.toward for one in bench.engine.outcome.injections] == ["network"]


@pytest.mark.parametrize("fail", [False, True])
def test_far_sides_are_reset_only_when_the_rules_are_back(bench: Bench, fail: bool) -> None:
    """Without rules a reset does not pass the fence, and it is sent but once."""
    bench.bring_to(Position.ON)
    bench.kernel.held = True
    bench.kernel.flush(fence=True)
    bench.kernel.look()
    bench.loop.run()
    assert bench.kernel.acts == ["fence up", f"socket {PORT}-40000 ended", "fence up"]
    assert bench.engine.outcome.injections == []
    if fail:
        bench.loop.run(SECONDS)
        assert bench.engine.outcome.injections == []
        bench.kernel.announce()
        bench.kernel.look()
    bench.kernel.release()
    assert [one.toward for one in bench.engine.outcome.injections] == ["network"]
    assert bench.engine.table.encrypted_keys() == []


def test_rules_are_nobodys_business_while_off(bench: Bench) -> None:
    bench.kernel.flush()
    bench.loop.run(2 * LOOK_EVERY_ANNOUNCED)
    assert bench.kernel.checks == 0
    assert bench.switch.guard.seen(bench.loop.now()) is None
