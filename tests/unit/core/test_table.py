"""The life of a connection: every move of the table, made by packets and calls and seen from outside."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_network

import pytest

from mcencrypt.core import admission, table
from mcencrypt.core.status import Counters, State
from mcencrypt.core.table import GHOST_LIFETIME, LIFE, Cause, Gone, Stage
from mcencrypt.core.verdict import DROP, Closed, Ended, InPlaintext
from tests.helpers.packets import ACK, PSH, RST, SYN
from tests.helpers.sides import ISN_A, ISN_B, A, B, Host, Side, connect, connected, identity, key_of, make, pair, say


class Scene:
    """One side and its peer, in `prefer`, and what happens between them."""

    def __init__(self, dialling: bool) -> None:
        """`dialling`: it is our socket that dials."""
        self.a, self.b = pair(mode="prefer")
        self.dialling = dialling
        self.here, self.there = (self.a, self.b) if dialling else (self.b, self.a)
        self.local, self.remote = (A, B) if dialling else (B, A)
        self.key = key_of(self.local, self.remote)

    # -- stages

    def bring_to(self, stage: Stage) -> None:
        """From `UNKNOWN`."""
        if stage is State.HANDSHAKE:
            self.message_1()
        elif stage is State.UNCONFIRMED:
            connect(self.a, self.b)
        elif stage is State.ENCRYPTED:
            connect(self.a, self.b)
            self.proven()
        elif stage is State.CLOSING:
            self.bring_to(State.ENCRYPTED)
            self.parted()
        elif stage is State.PLAINTEXT:
            self.in_plaintext()
        elif stage is State.HEALTH_CHECK:
            self.checked()
        elif stage is Gone.GHOST:
            self.ended()
        known = self.here.table.stage(self.key)
        assert (State.HANDSHAKE if self.here.engine.admission.keys() else known) is stage
        self.here.events()
        self.here.injected()

    def seen(self) -> Stage:
        """Where it stands, as a status and the answer to a packet show it."""
        here = self.here
        table = here.table
        assert sum(self.key in where for where in (table.by_local, table.plain, table.checks, table.ghosts)) <= 1
        if states := here.states():
            (state,) = states
            return state
        verdict = here.ingress(make(self.remote, self.local, 1, 1, RST))
        return Gone.GHOST if verdict is DROP and here.refused == {"ended-by-us": 1} else Gone.UNKNOWN

    # -- causes

    def message_1(self) -> None:
        syn = self.a.dials()
        if not self.dialling:
            self.b.gets(syn)

    def message_2(self) -> None:
        self.b.gets(self.a.dials())
        self.a.gets(self.b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)))

    def acknowledged(self) -> None:
        self.message_2()
        self.b.gets(self.a.sends(make(A, B, ISN_A + 1, ISN_B + 1, ACK)))

    def given_up(self) -> None:
        self.here.engine.tick(admission.LIFETIME)

    def proven(self) -> None:
        say(self.a, self.b, b"first")

    def parted(self) -> None:
        self.here.sends(make(self.local, self.remote, 1, 1, RST | ACK))

    def in_plaintext(self) -> None:
        self.here.egress(make(self.local, self.remote, 800, 700, ACK))

    def checked(self) -> None:
        self.here.takes(mode="require", probes=(ip_network("10.0.0.0/24"),))
        self.here.ingress(make(self.remote, self.local, 55, 0, SYN))
        self.here.egress(make(self.local, self.remote, 9500, 56, SYN | ACK))

    def spoken(self) -> None:
        self.here.ingress(make(self.remote, self.local, 56, 9501, ACK | PSH, b"GET /"))

    def begun_in_plaintext(self) -> None:
        self.here.takes(mode="prefer", probes=())
        self.here.ingress(make(self.remote, self.local, 77, 0, SYN))
        self.here.egress(make(self.local, self.remote, 9000, 78, SYN | ACK))

    def replaced(self) -> None:
        connect(self.a, self.b, 900_000, 800_000)

    def no_socket(self) -> None:
        self.here.table.forget(self.key)

    def ended(self) -> None:
        if self.key in self.here.table.by_local:
            self.here.table.abort(self.key, 0.0, "a test")
        else:
            self.here.table.disown(self.key, 0.0)

    def left_alone(self) -> None:
        assert self.here.engine.leave_all_but([9], 0.0) == []

    def remembered(self) -> None:
        self.here.table.remember(self.key, 111, 222, 0.0)

    def expired(self) -> None:
        self.here.engine.tick(GHOST_LIFETIME)


CAUSES: dict[Cause, Callable[[Scene], None]] = {cause: getattr(Scene, cause.name.lower()) for cause in Cause}


@pytest.mark.parametrize(("stage", "cause"), LIFE, ids=lambda word: word.name)
def test_every_move_leads_where_the_table_says(stage: Stage, cause: Cause) -> None:
    scene = Scene(dialling=cause is Cause.MESSAGE_2)
    scene.bring_to(stage)
    CAUSES[cause](scene)
    events, injected = scene.here.events(), scene.here.injected()
    target, effect = LIFE[stage, cause]
    if cause is Cause.REPLACED:
        gone, plain = scene.here.table.gone, scene.here.table.gone_plaintext
        assert gone.connections + plain.connections == (stage not in (Gone.GHOST, State.HEALTH_CHECK))
        assert scene.seen() is State.UNCONFIRMED, "the new one"
        assert scene.here.table.ghosts == {}
        return
    assert scene.seen() is target
    assert ("reported" in effect) is bool(events)
    assert ("far side reset" in effect) is any(toward == "network" for toward, _ in injected)


def test_the_table_has_every_stage_and_cause() -> None:
    assert {cause for _, cause in LIFE} == set(Cause)
    assert {stage for stage, _ in LIFE} == {*State, *Gone}


# -- what is told, and what is counted


def test_what_closed_is_told_with_all_that_it_carried() -> None:
    a, b = connected()
    say(a, b, b"12345")
    a.events()
    a.table.forget(key_of(A, B))
    carried = Counters(bytes_out=5, records_out=1)
    assert a.events() == [Closed(key_of(A, B), identity(2), carried)]
    assert (a.table.gone.connections, a.table.gone.counters) == (1, carried)
    a.untouched()
    assert a.egress(make(A, B, ISN_A + 1, ISN_B + 1, ACK, b"confidential")) is DROP


def test_who_has_proven_nothing_is_not_named_when_it_goes() -> None:
    _, b = connected()
    b.table.forget(key_of(B, A))
    assert b.events() == [Closed(key_of(B, A), b"", Counters())]


def test_a_ghost_has_no_socket_to_forget() -> None:
    a = Side()
    a.table.disown(key_of(A, B), 0.0)
    a.table.forget(key_of(A, B))
    a.table.disown(key_of(A, B), 50.0)
    assert a.table.ghosts[key_of(A, B)].expires == GHOST_LIFETIME, "ended once"


def test_a_silent_connection_is_looked_up() -> None:
    a, _ = connected()
    key = key_of(A, B)
    assert a.engine.tick(table.LOOK_AFTER - 1) == []
    assert a.engine.tick(table.LOOK_AFTER + 1) == [key]
    a.table.touch(key, table.LOOK_AFTER)
    assert a.engine.tick(table.LOOK_AFTER + 1) == []


def test_one_that_has_ended_is_looked_up_sooner() -> None:
    a, _ = connected()
    a.sends(make(A, B, ISN_A + 1, ISN_B + 1, RST | ACK))
    assert a.engine.tick(table.LINGER) == []
    assert a.engine.tick(table.LINGER + 1) == [key_of(A, B)]


def test_a_silent_plaintext_connection_is_looked_up() -> None:
    a = Side(mode="prefer")
    a.egress(make(A, B, 800, 700, ACK))
    assert a.kinds() == [InPlaintext]
    assert a.engine.tick(table.LOOK_AFTER + 1) == [key_of(A, B)]
    a.table.touch(key_of(A, B), table.LOOK_AFTER)
    assert a.engine.tick(table.LOOK_AFTER + 1) == []


def test_a_journal_is_told_of_each_flow_that_comes_and_goes() -> None:
    told: list[tuple[bytes, bool]] = []
    a, b = connected()
    watched = table.Table(a.outcome, lambda flow, present: told.append((flow.key, present)))
    flow = a.table.by_local[key_of(A, B)]
    assert watched.add(flow)
    watched.abort(flow.key, 0.0, "a test")
    assert told == [(flow.key, True), (flow.key, False)]
    assert Ended(flow.key, "a test") in a.events()
    elsewhere: Host = (bytes((10, 9, 9, 9)), 1)
    watched.abort(key_of(A, elsewhere), 0.0, "a test")
    assert b.outcome.events == [] and len(told) == 2
