"""The demo from beginning to end, whatever the nodes are."""

from __future__ import annotations

import time
from collections.abc import Callable

from lab import Capture, LabError, TwoHosts, measure, transfer, two_hosts
from mcencrypt.core.status import State

from .dump import any_payload, around, side_by_side
from .nodes import PATIENCE, Nodes
from .operators import Operator
from .screen import Screen

BLAST_PORT = 7999
_BLAST_SECONDS = 2
_TRANSFER = 2_000_000
_ROWS = 9
_ROW = 8


class Story:
    """One run."""

    def __init__(self, net: TwoHosts, nodes: Nodes, screen: Screen) -> None:
        self._net, self._nodes, self._screen = net, nodes, screen
        ports = (*nodes.ports, BLAST_PORT)
        self._a, self._b = Operator(net.a, ports, screen), Operator(net.b, ports, screen)
        self._plain_sample = b""
        self._plain_gbps = 0.0

    def tell(self) -> None:
        """All steps. Raises LabError where one cannot go on."""
        self._connect()
        self._listen_in()
        self._switch_on()
        self._measure()
        self._switch_off()

    def log(self) -> list[str]:
        """What both daemons have to say, for when something went wrong."""
        lines = []
        for one in (self._a, self._b):
            try:
                told = one.ask("status").splitlines()
            except LabError as problem:
                told = [str(problem)]
            lines += [f"{one.host.name}: {line}" for line in (*told, *one.log().splitlines()[-12:]) if line]
        return lines

    def _connect(self) -> None:
        net, screen = self._net, self._screen
        screen.step("Two hosts, and a NAT router between them")
        screen.say(
            f"a {net.a.v4} ---- router, masquerading as {net.public()} ---- b {net.b.v4}",
            "                                                         ^ the wire that we listen to",
        )

    def _listen_in(self) -> None:
        screen, nodes = self._screen, self._nodes
        screen.step("Without mcencrypt: what a listener on the wire sees")
        with self._wire() as wire:
            screen.say(*nodes.start())
            screen.say(*nodes.exchange())
        found = wire.search(nodes.markers)
        self._plain_sample = around(wire, nodes.markers[0], _ROWS * _ROW)
        screen.say(_counted(found))
        screen.check(found[nodes.markers[0]], f"the wire shows {_name(nodes.markers[0])!r} in plaintext")
        self._plain_gbps = self._throughput()
        screen.say(f"throughput in plaintext, one stream: {self._plain_gbps:.1f} Gbit/s")

    def _switch_on(self) -> None:
        screen, nodes, a, b = self._screen, self._nodes, self._a, self._b
        screen.step("Switching on, while the nodes are connected")
        a.type("keygen", str(a.key), show=3)
        a.copy_key(b)
        nodes.expect_reset()
        a.type("on")
        b.type("on")
        begun = time.monotonic()
        said = nodes.wait_connected()
        took = time.monotonic() - begun
        screen.say(*said)
        screen.check(took <= nodes.seconds_to_reconnect, f"reconnected {took:.1f} s later, by themselves")
        with self._wire() as wire:
            screen.say(*nodes.exchange())
            self._checked_transfer()
        self._prove_encrypted(wire)
        self._show_status()

    def _checked_transfer(self) -> None:
        """One more connection, from its first packet to its last, for `decode` to read."""
        done = transfer(self._net.a, self._net.b, BLAST_PORT, size=_TRANSFER, deadline=PATIENCE)
        self._screen.check(
            done.identical, f"and {_TRANSFER / 1e6:g} MB each way on a connection of its own, compared by SHA-256"
        )

    def _prove_encrypted(self, wire: Capture) -> None:
        screen, nodes = self._screen, self._nodes
        screen.step("With mcencrypt: the same wire after the reconnection")
        sealed = any_payload(wire, nodes.ports, _ROWS * _ROW)
        screen.say(
            *side_by_side(("before, in plaintext", self._plain_sample), ("now, a message of that size", sealed), _ROWS)
        )
        found = wire.search(nodes.markers)
        screen.say(_counted(found))
        screen.check(
            wire.packets and not wire.dropped and not any(found.values()),
            f"{sum(found.values())} plaintext markers in {wire.packets} packets",
        )
        try:
            # the connection that is in the capture from its beginning
            self._a.type("decode", "--check", "--port", str(BLAST_PORT), str(wire.path), show=2)
        except LabError as problem:
            screen.problem(str(problem))
        invalid = self._net.router.invalid_count()
        screen.check(not invalid, f"the router's connection tracking found {invalid} packets invalid")

    def _show_status(self) -> None:
        screen = self._screen
        screen.step("What the operator sees")
        self._a.type("status")
        for here, there in ((self._a, self._b), (self._b, self._a)):
            proven = [one["identity"] for one in here.status()["connections"] if one["state"] == State.ENCRYPTED]
            expected = there.ask("identity").strip()
            screen.check(
                set(proven) == {expected},
                f"{here.host.name} has proof that it talks to {there.host.name}, identity {expected[:12]}...",
            )

    def _measure(self) -> None:
        screen = self._screen
        screen.step("What it costs")
        sealed = self._throughput()
        screen.say(
            f"throughput, one stream, both hosts on this machine: {self._plain_gbps:.1f} Gbit/s in plaintext, "
            f"{sealed:.2f} Gbit/s encrypted",
            "(`make bench` measures latency, connection set-up, processor time and memory as well)",
        )
        screen.check(sealed > 0.05, f"{sealed * 1000:.0f} Mbit/s encrypted")

    def _switch_off(self) -> None:
        screen, nodes = self._screen, self._nodes
        screen.step("Switching off")
        self._a.type("off")
        nodes.expect_reset()
        self._b.type("off", "--now")
        self._a.type("off", "--now")
        nodes.wait_connected()
        with self._wire() as wire:
            nodes.exchange()
        found = wire.search(nodes.markers)
        screen.check(found[nodes.markers[0]], "connected again, and in plaintext as before")
        for one in (self._a, self._b):
            screen.check(not one.rules(), f"no iptables or ip6tables rule of mcencrypt is left on {one.host.name}")

    def _throughput(self) -> float:
        """Gbit/s from a to b."""
        return float(measure(self._net.a, self._net.b, BLAST_PORT, "blast", "--seconds", _BLAST_SECONDS)["gbps"])

    def _wire(self) -> Capture:
        return Capture(self._net.router, "b")


def _name(marker: bytes) -> str:
    """A marker as people read it: without a binary magic, if it has one."""
    if len(set(marker)) == 1:
        return f"{len(marker)} x {marker[:1].decode()}"
    return marker.strip(b"\0").decode("ascii", "ignore").strip()


def _counted(found: dict[bytes, int]) -> str:
    return "found on the wire: " + ", ".join(f"{_name(marker)!r} {count} times" for marker, count in found.items())


def run(make: Callable[[TwoHosts], Nodes], screen: Screen) -> int:
    """The whole demo; returns the exit status: 1 if anything did not hold."""
    begun = time.monotonic()
    try:
        with two_hosts() as net:
            story = Story(net, make(net), screen)
            try:
                story.tell()
            except LabError as problem:
                screen.problem(str(problem))
            if screen.failed:
                screen.faint("", "what the daemons say:", *story.log())
    except LabError as problem:
        screen.problem(str(problem))
    seconds = time.monotonic() - begun
    screen.say("")
    if screen.failed:
        screen.title(f"The demo failed after {seconds:.0f} s: {len(screen.failed)} of its checks did not hold.")
        return 1
    screen.title(f"All of it held; {seconds:.0f} s, and everything is cleaned up.")
    return 0
