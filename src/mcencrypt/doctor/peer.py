"""What is really on the path to a peer."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Protocol

from mcencrypt.core.status import State
from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, Severity, note, ok, problem, warning
from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.control.replies import Probed
    from mcencrypt.core.handshake import CarrierWord
    from mcencrypt.core.policy import Network
    from mcencrypt.core.probe import ProbeOutcome


class Ask(Protocol):
    """The daemon's command `probe`, with the key of that id or the one that it offers. Raises OperatorError."""

    def __call__(
        self, address: str, port: int, key_id: str | None = None, carrier: CarrierWord = ..., seconds: float = ...
    ) -> Probed: ...


MAX_ADDRESSES = 4
MAX_KEYS = 3
#: Seconds that an answer in the stream may take, where it matters little and where it does.
SHORT, LONG = 1.0, 4.0
_HOST_PORT = re.compile(r"\[(?P<six>[^\]]+)\](?::(?P<port6>\d+))?|(?P<host>[^:]+)(?::(?P<port>\d+))?")
_SMALL = 68


@dataclass(frozen=True)
class Peer:
    """Whom to ask: one address and port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def parse_peer(text: str) -> tuple[str, int | None]:
    """Host and port of HOST, HOST:PORT, an IPv6 address, or [IPv6]:PORT, with CHAIN@ before it or not.

    Raises ValueError.
    """
    # as `multichaind CHAIN@HOST:PORT` has it
    peer = text.rpartition("@")[2]
    try:
        return str(ip_address(peer)), None
    except ValueError:
        match = _HOST_PORT.fullmatch(peer)
    if match is None:
        raise ValueError(f"{text!r} is not a peer: give HOST, HOST:PORT, or [IPv6]:PORT")
    port = match["port6"] or match["port"]
    if port is not None and not 1 <= int(port) <= 65535:
        raise ValueError(f"{text!r}: {port} is not a port")
    return match["six"] or match["host"], int(port) if port else None


def check_peer(case: Case, peer: Peer, ask: Ask) -> Iterator[Finding]:
    """Ask the peer, with the daemon's handshake and with packets of our own."""
    connected = list(_connections(case, peer))
    yield from connected
    answer: Probed | None = None
    if case.status is None:
        yield warning(
            "peer.no-daemon",
            f"{peer} cannot be asked for a handshake: no daemon runs here",
            "start it with `mcencrypt on`, then ask again",
        )
    else:
        try:
            answer = ask(peer.address, peer.port)
        except OperatorError as error:
            what, _, advice = str(error).partition(": ")
            yield problem("peer.not-asked", f"{peer} cannot be asked for a handshake: {what}", advice or "see above")
    other = _with_other_keys(case, peer, ask) if answer and answer["outcome"] == "silent" else None
    stream = _in_stream(peer, ask, answer) if answer and other is None else None
    best = stream if answer and answer["outcome"] != "encrypted" and stream and _is_encrypted(stream) else answer
    encrypted = other is not None or _is_encrypted(best)
    carries = "" if encrypted else _carries(case, peer)
    reached = _reached(case, peer)
    if answer and other:
        yield _other_key(peer, answer["key_id"], other["key_id"])
    elif answer and best:
        yield _OUTCOMES[best["outcome"]](_Found(case, peer, best, carries, reached is not None))
        if stream:
            yield from _carriers(case, peer, answer["outcome"], stream["outcome"])
    elif carries:
        yield _carried(peer, carries)
    yield from _offers(peer, other or best)
    yield from _check_size(case, peer, reached)


@dataclass(frozen=True)
class _Found:
    """What is known of a path once it was tried."""

    case: Case
    peer: Peer
    answer: Probed
    #: "passes" or "stripped": what happens to data in SYNs; "" if that is not known.
    carries: str
    #: Whether the host answers pings.
    reached: bool


def _with_other_keys(case: Case, peer: Peer, ask: Ask) -> Probed | None:
    """The answer with a key that we accept and do not offer, if there is one that it answers."""
    assert case.status is not None
    others = [one["id"] for one in case.status["keys"] if one["accepted"] and not one["offered"]]
    for key_id in others[:MAX_KEYS]:
        try:
            other = ask(peer.address, peer.port, key_id)
        except OperatorError:
            continue
        if other["outcome"] == "encrypted":
            return other
    return None


def _is_encrypted(answer: Probed | None) -> bool:
    return answer is not None and answer["outcome"] == "encrypted"


def _in_stream(peer: Peer, ask: Ask, answer: Probed) -> Probed | None:
    """The answer to a handshake in the stream; where one in a SYN was answered it is not waited for as long."""
    try:
        return ask(peer.address, peer.port, answer["key_id"], "stream", SHORT if _is_encrypted(answer) else LONG)
    except OperatorError:
        return None


def _carriers(case: Case, peer: Peer, syn: ProbeOutcome, stream: ProbeOutcome) -> Iterator[Finding]:
    """What may carry handshakes to that peer, and what to set for it."""
    if syn == "encrypted":
        both = " and in the stream" if stream == "encrypted" else ""
        yield ok("peer.carriers", f"handshakes pass in SYNs{both}: nothing to set")
    elif stream == "encrypted":
        here = f'set relayed = ["{peer.address}"] here'
        if _named(case.config.relayed, peer):
            yield ok("peer.carriers", "handshakes pass in the stream only, and `relayed` names it")
        elif _plaintext_allowed(case, peer):
            text = "handshakes pass in the stream only: this node goes on in plaintext"
            yield problem("peer.carriers", text, here)
        elif syn == "silent":
            text = "handshakes pass in the stream only; SYNs with data get no answer"
            yield warning("peer.carriers", text, f"{here}: else each first attempt fails")
        else:
            yield ok("peer.carriers", "handshakes pass in the stream only: nothing to set here")
    elif stream == "unanswered":
        text = "no handshake is answered, neither in SYNs nor in the stream"
        yield problem("peer.carriers", text, "on the node: relayed = [ADDRESS], the relay's as seen from there")


def _connections(case: Case, peer: Peer) -> Iterator[Finding]:
    """Those that exist with this address now."""
    start = f"[{peer.address}]:" if ":" in peer.address else f"{peer.address}:"
    for one in case.status["connections"] if case.status else ():
        if one["peer"].startswith(start):
            text = f"connection {one['local']} - {one['peer']} is {one['state']}"
            if one["state"] == State.PLAINTEXT:
                yield warning("peer.plaintext", text, "once the peer is on, it is encrypted when it is next made")
            else:
                yield ok("peer.connection", text + (f", with {one['identity']}" if one["identity"] else ""))


def _other_key(peer: Peer, ours: str, theirs: str) -> Finding:
    return problem(
        "peer.lacks-offered-key",
        f"{peer} is silent to key {ours}, which this node offers, and answers to key {theirs}: it can dial us, and we "
        "cannot dial it",
        f"on that node `mcencrypt key add` the key {ours}, or `mcencrypt key use {theirs}` here",
    )


def _encrypted(found: _Found) -> Finding:
    answer = found.answer
    took = f" in {answer['round_trip'] * 1000:.1f} ms" if answer["round_trip"] is not None else ""
    return ok(
        "peer.encrypted",
        f"{found.peer} answered the handshake{took}: identity {answer['identity']}, network key {answer['key_id']}",
    )


def _no_mcencrypt(found: _Found) -> Finding:
    if found.carries == "stripped":
        return _carried(found.peer, found.carries)
    sure = "; the path does carry data in SYNs" if found.carries == "passes" else ""
    what = f"{found.peer} answers as a host without mcencrypt, or switched off, does{sure}"
    advice = "switch it on there" + (
        "" if sure else "; if it is on, something on the path strips data from SYNs: its log says not-a-handshake then"
    )
    if _plaintext_allowed(found.case, found.peer):
        return Finding("peer.no-mcencrypt", Severity.WARNING, f"{what}: connections with it are plaintext", advice)
    return problem("peer.no-mcencrypt", f"{what}, so connections with it are refused here", advice)


def _stripped(found: _Found) -> Finding:
    return problem(
        "peer.stripped",
        f"{found.peer} acknowledged our handshake and its own did not come: something on the path removes data from "
        "SYN-ACKs, or ends TCP (a proxy, a load balancer, docker-proxy)",
        "name it in `relayed` on the node behind it; `mcencrypt doctor` there looks for proxies on that host",
    )


def _not_authentic(found: _Found) -> Finding:
    return problem(
        "peer.not-authentic",
        f"{found.peer}: {found.answer['detail']}",
        "compare network keys and versions of both (`mcencrypt status`); else something on the path changes data",
    )


def _refused(found: _Found) -> Finding:
    return problem(
        "peer.refused",
        f"{found.peer}: {found.answer['detail']}",
        "start multichaind there, and see that its port is this one; look at its firewall for REJECT",
    )


def _silent(found: _Found) -> Finding:
    theirs, ours = found.answer["last_refused_key_id"], found.answer["key_id"]
    if theirs and theirs != ours:
        return problem(
            "peer.other-key",
            f"{found.peer} is silent to our network key {ours}, and offered us key {theirs} when it last dialled",
            "one of the two has the wrong key: copy the network's key to it",
        )
    if found.carries == "stripped":
        return _carried(found.peer, found.carries)
    answers = found.reached or bool(found.carries)
    where = "the host answers otherwise" if answers else "nothing of that host answers"
    advice = (
        "in this order: is multichaind running there, does a firewall drop the port (or SYNs with data), has it the "
        "same network key and the right time, does it list this node if it lists peers; its own "
        "`mcencrypt status` counts what it refused, and why"
        if answers
        else "is the host up, is the address right, does a firewall between drop all of it? If it is up, its own "
        "`mcencrypt status` counts what it refused, and why"
    )
    sure = ", and the path carries data in SYNs" if found.carries == "passes" else ""
    return problem("peer.silent", f"{found.peer} does not answer the handshake; {where}{sure}", advice)


_OUTCOMES: dict[str, Callable[[_Found], Finding]] = {
    "encrypted": _encrypted,
    "no-mcencrypt": _no_mcencrypt,
    "stripped": _stripped,
    "not-authentic": _not_authentic,
    "refused": _refused,
    "silent": _silent,
}


def _carried(peer: Peer, carries: str) -> Finding:
    if carries == "passes":
        return ok("peer.syn-data", f"the path to {peer.address} carries data in SYNs (tried on other ports)")
    return problem(
        "peer.syn-data",
        f"something on the path to {peer.address} removes data from SYNs (seen on other ports), and so every handshake",
        "find the firewall or load balancer that does (SYN proxy, TCP normalization), and except the P2P port",
    )


def _offers(peer: Peer, answer: Probed | None) -> Iterator[Finding]:
    if answer and answer["offered"] is False:
        yield note(
            "peer.offers-other",
            f"{peer} accepts network key {answer['key_id']}, and offers another one when it dials",
            "right in the middle of a key rotation: see `mcencrypt key list` on both",
        )


def _carries(case: Case, peer: Peer) -> str:
    try:
        return case.machine.syn_data(peer.address, case.ports)
    except OSError:
        return ""


def _reached(case: Case, peer: Peer) -> float | None:
    try:
        return case.machine.echo(peer.address, _SMALL)
    except OSError:
        return None


def _check_size(case: Case, peer: Peer, reached: float | None) -> Iterator[Finding]:
    """Does a packet as large as the route says get there; only where small ones are answered."""
    mtu = case.machine.route_mtu(peer.address)
    if reached is None:
        yield note("peer.mtu", f"the route to {peer.address} has MTU {mtu}; pings are not answered, so not tried")
        return
    if any(case.machine.echo(peer.address, mtu) is not None for _ in range(2)):
        took = f"{reached * 1000:.1f} ms"
        yield ok("peer.mtu", f"packets of {mtu} bytes, the route's MTU, reach {peer.address}; round trip {took}")
        return
    low, high = _SMALL, mtu
    while high - low > 8:
        middle = (low + high) // 2
        if case.machine.echo(peer.address, middle) is None:
            high = middle
        else:
            low = middle
    yield warning(
        "peer.mtu",
        f"packets of {mtu} bytes, the route's MTU, do not reach {peer.address}; the largest that does has about {low}",
        f"if nothing on the path says so to the sender, blocks stall: ip route change ... mtu {low}, or sysctl -w "
        "net.ipv4.tcp_mtu_probing=1",
    )


def _plaintext_allowed(case: Case, peer: Peer) -> bool:
    if case.status and case.status["mode"] == "prefer":
        return True
    return _named(case.config.allow_plaintext, peer)


def _named(networks: Iterable[Network], peer: Peer) -> bool:
    address = ip_address(peer.address)
    return any(address.version == one.version and address in one for one in networks)
