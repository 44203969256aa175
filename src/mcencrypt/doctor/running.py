"""What the running daemon counts: refusals, plaintext connections, lost packets."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from mcencrypt.core.status import State
from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, ok, warning
from mcencrypt.version import VERSION

if TYPE_CHECKING:
    from mcencrypt.control.replies import Status

_SHOWN = 10
# Reason: what it means, what to do.
_REASONS = {
    "not-a-handshake": (
        "a peer has no mcencrypt or is off, or something on the path strips data from SYNs",
        "mcencrypt doctor PEER tells which",
    ),
    "wrong-key": (
        "a peer uses another network key",
        "the daemon's log has the peer and its key's id; copy this network's key there",
    ),
    "other-version": ("a peer speaks another version of the protocol", "install the same version on both"),
    "not-listed": ("a peer's identity is not listed", "`mcencrypt peers add NAME KEY` if it belongs here"),
    "forged-handshake": ("a handshake was not authentic", "capture at both ends: somebody experiments, or a middlebox"),
    "malformed-handshake": ("a handshake was malformed", "capture at both ends: somebody experiments, or a middlebox"),
    "replayed": ("a handshake was seen before", "somebody replays recordings; nothing got in"),
    "tampered": ("a record was not authentic", "somebody, or broken hardware, changes packets on the path"),
    "fragment": ("IP fragments came in", "find the device on the path that fragments; a smaller route mtu avoids it"),
    "signed-tcp": ("a socket uses TCP-MD5 or TCP-AO", "switch that off for the P2P ports"),
    "too-many-attempts": ("the table of attempts was full", "find out who connects: `mcencrypt status`"),
    "too-many-connections": ("the table of connections was full", "find out who connects: `mcencrypt status`"),
    "bad-checksum": ("packets had wrong checksums", "look for a defective link or network card"),
}


def check_daemon(case: Case) -> Iterator[Finding]:
    """Does one answer, is it on, is it of this version."""
    status = case.status
    if status is None:
        yield note("daemon.none", case.silence or "no daemon answers", "mcencrypt on")
        return
    what = "on" if status["enabled"] else "draining" if status["draining"] else "off"
    yield ok("daemon.answers", f"the daemon (pid {status['pid']}, version {status['version']}) answers; it is {what}")
    if status["version"] != VERSION:
        yield warning(
            "daemon.version",
            f"the daemon is version {status['version']}, this command {VERSION}",
            "restart the daemon: systemctl restart mcencrypt",
        )
    if status["rules_lost"]:
        yield warning(
            "daemon.rules-lost",
            f"another program removed the rules {status['rules_lost']} times; they were put back within seconds",
            "the log says when; have that program leave the tables raw and mangle alone",
        )
    bad = status["queue"]["bad_verdicts"]
    if bad:
        text = f"{bad} packets were dropped by an internal error"
        yield warning("daemon.errors", text, "report it, with the daemon's log")
    yield from _check_plaintext(status)


def _check_plaintext(status: Status) -> Iterator[Finding]:
    plain = [one["peer"] for one in status["connections"] if one["state"] == State.PLAINTEXT]
    if plain:
        shown = ", ".join(plain[:_SHOWN]) + (f" and {len(plain) - _SHOWN} more" if len(plain) > _SHOWN else "")
        yield warning(
            "daemon.plaintext",
            f"{len(plain)} connections are plaintext, as mode {status['mode']} or allow_plaintext permits: {shown}",
            "switch mcencrypt on there; connections from before become encrypted when they are next made",
        )


def check_refusals(case: Case) -> Iterator[Finding]:
    """What was refused since the daemon's start, where there is something to do about it."""
    if case.status is None:
        return
    refused = case.status["refused"]
    for reason, count in refused.items():
        if count and reason in _REASONS:
            meaning, advice = _REASONS[reason]
            yield warning(f"refused.{reason}", f"{count} times since its start {meaning} ({reason})", advice)
    forged = case.status["totals"]["auth_failures"]
    if forged and not refused.get("tampered"):
        yield warning("refused.tampered", f"{forged} records were not authentic", _REASONS["tampered"][1])
