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
#: Seconds after which a counter that has not grown is history.
LONG = 3600.0
# Reason: what it means, what to do.
_REASONS = {
    "not-a-handshake": (
        "a peer has no mcencrypt or is off, or something on the path strips data from SYNs",
        "the daemon's log names it; `mcencrypt doctor PEER` tells which of these it is",
    ),
    "wrong-key": (
        "a peer uses another network key",
        "the daemon's log has the peer and its key's id; copy this network's key there",
    ),
    "other-version": ("a peer speaks another version of the protocol", "install the same version on both"),
    "not-listed": ("a peer's identity is not listed", "`mcencrypt peers add NAME KEY` if it belongs here"),
    "own-key": (
        "this node dialled an address that leads back to itself, or met a copy of itself",
        "nothing, if it dials its own published address; a copied node needs a state_dir of its own",
    ),
    "key-changed": (
        "another key answered a dial than the one that is pinned to the address",
        "compare it with `mcencrypt identity` there, then `mcencrypt peers forget ADDRESS`, or correct the peers file",
    ),
    "forged-handshake": ("a handshake was not authentic", "capture at both ends: somebody experiments, or a middlebox"),
    "malformed-handshake": ("a handshake was malformed", "capture at both ends: somebody experiments, or a middlebox"),
    "replayed": ("a handshake was seen before", "somebody replays recordings; nothing got in"),
    "health-check-data": (
        "data was sent on a connection from an address in probes, by either side",
        "give peers there mcencrypt; a health check there must only connect",
    ),
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
        yield _counted(
            status,
            "rules_lost",
            "daemon.rules-lost",
            f"another program removed the rules {_times(status['rules_lost'])}; they were put back within seconds",
            "the log says when; have that program leave the tables raw and mangle alone",
        )
    for one in status["changed_keys"][:_SHOWN]:
        yield warning(
            "daemon.key-changed",
            f"another key answers at {one['address']}: {one['other_key']} since {one['other_at']}, {one['key']} before",
            f"compare it with `mcencrypt identity` there; if it is right: mcencrypt peers forget {one['address']}",
        )
    bad = status["queue"]["bad_verdicts"]
    if bad:
        text = f"{_count(bad, 'packet')} dropped by an internal error"
        yield _counted(status, "bad_verdicts", "daemon.errors", text, "report it, with the daemon's log")
    yield from _check_plaintext(status)


def _check_plaintext(status: Status) -> Iterator[Finding]:
    plain = [one["peer"] for one in status["connections"] if one["state"] == State.PLAINTEXT]
    if plain:
        shown = ", ".join(plain[:_SHOWN]) + (f" and {len(plain) - _SHOWN} more" if len(plain) > _SHOWN else "")
        many = "1 connection is" if len(plain) == 1 else f"{len(plain)} connections are"
        yield warning(
            "daemon.plaintext",
            f"{many} plaintext, as mode {status['mode']} or allow_plaintext permits: {shown}",
            "switch mcencrypt on there; connections from before become encrypted when they are next made",
        )


def check_refusals(case: Case) -> Iterator[Finding]:
    """What was refused since the daemon's start, where there is something to do about it."""
    if case.status is None:
        return
    refused = dict(case.status["refused"])
    own = case.status["own_addresses"]
    if own:
        known = sum(one["dials"] for one in own)
        refused["own-key"] = max(refused.get("own-key", 0) - known, 0)
        yield note(
            "daemon.own-address",
            f"this node dialled itself {_times(known)}, at {', '.join(one['address'] for one in own)}: that is its own "
            "address, as published; nothing is wrong",
        )
    for reason, count in refused.items():
        if count and reason in _REASONS:
            meaning, advice = _REASONS[reason]
            text = f"{_times(count)} since its start {meaning} ({reason})"
            yield _counted(case.status, f"refused.{reason}", f"refused.{reason}", text, advice)
    forged = case.status["totals"]["auth_failures"]
    if forged and not refused.get("tampered"):
        text = f"{_count(forged, 'record')} not authentic"
        yield warning("refused.tampered", text, _REASONS["tampered"][1])


def _counted(status: Status, counter: str, name: str, text: str, advice: str) -> Finding:
    """What a counter says: a warning while it grows, worth knowing once it has not for long."""
    since = status["grew"].get(counter)
    if since is None:
        return warning(name, text, advice)
    text = f"{text}; last {ago(since)}"
    return note(name, text, advice) if since > LONG else warning(name, text, advice)


def ago(seconds: float) -> str:
    """``20 s ago``, ``5 min ago``, ``3 h ago``, ``2 days ago``."""
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit} ago"
    return f"{seconds:.0f} s ago"


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"


def _count(count: int, noun: str) -> str:
    return f"1 {noun} was" if count == 1 else f"{count} {noun}s were"
