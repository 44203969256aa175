"""``mcencrypt status``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import click

from mcencrypt.cli import text
from mcencrypt.cli.settings import Settings, command, pass_settings
from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.control.replies import Connection, Key, PlaintextPeer, Queue, Status, Uncovered
    from mcencrypt.core.reasons import Reason

_HEAD = ("PEER", "LOCAL", "STATE", "AGE", "SENT", "RECEIVED", "RECORDS", "RESENT", "FORGED", "PEER IDENTITY")
_RIGHT = _HEAD[3:9]
#: What leaves first where the terminal is narrow.
_LEAVE = (("RECORDS",), ("LOCAL",), ("RESENT", "FORGED"), ("AGE",))


@command("mcencrypt status\nmcencrypt status --json | jq .totals\nmcencrypt status --check || alert")
@click.option("--json", "as_json", is_flag=True, help="Print all of it as one JSON object.")
@click.option("--check", is_flag=True, help="Print one line, and fail unless all is as it was switched, on or off.")
@pass_settings
def status(settings: Settings, as_json: bool, check: bool) -> None:
    """Show whether encryption is on, and each connection. Fails if no daemon answers.

    RECORDS counts sent/received, RESENT retransmissions to the peer, FORGED records that were refused because their
    authentication failed. "stream" says that the handshake was in the stream, as behind relays. A peer's identity is
    shown once it is proven: its name in the peers file, else its public key, to be compared with `mcencrypt identity`
    there.
    """
    from mcencrypt.control.client import request

    if as_json and check:
        raise click.UsageError("--json and --check exclude each other")
    result = request(settings.run_dir_to_read(), "status")
    if check:
        click.echo(healthy(result))
    elif as_json:
        click.echo(json.dumps(result, indent=2))
    else:
        click.echo("\n".join(describe(result, text.columns())))


def describe(result: Status, width: int | None = None) -> list[str]:
    """The result of the control command ``status`` as lines for a terminal of that width; None: any."""
    lines = [*text.wrapped("", _headline(result), width, 0), ""]
    lines += [
        *text.wrapped("ports", ", ".join(map(str, result["ports"])), width),
        *text.wrapped("network key", f"{result['key_id']}{_other_keys(result['keys'])}", width),
        f"identity     {result['identity']}",
        "",
    ]
    connections = result["connections"]
    if connections:
        rows, short = ([_row(one, brief) for one in connections] for brief in (False, True))
        lines += text.fitting(_HEAD, rows, short, _LEAVE, _RIGHT, width)
    else:
        lines.append("no connections")
    lines += plaintext(result["plaintext_peers"], width)
    lines += uncovered(result, width)
    lines += changed_keys(result, width)
    lines += own_addresses(result, width)
    totals = result["totals"]
    lines += [
        "",
        *text.wrapped(
            "totals",
            f"{text.plural(totals['connections'], 'connection')}, "
            f"sent {text.size(totals['bytes_out'])} in {text.plural(totals['records_out'], 'record')}, "
            f"received {text.size(totals['bytes_in'])} in {text.plural(totals['records_in'], 'record')}, "
            f"{totals['retransmissions']} resent, {totals['auth_failures']} forged",
            width,
        ),
        *text.wrapped("refused", _reasons(result["refused"]), width),
        *text.wrapped("queue", _queue(result["queue"]), width),
        *text.wrapped("rules", _rules(result), width),
    ]
    return lines


def healthy(result: Status) -> str:
    """One line that says how the daemon does what it was switched to do.

    Off is as good as on. Raises OperatorError if there must be rules and they are not known to be in place, if the
    fence is not, or if MultiChain talks on ports that none covers.
    """
    if result["enabled"] or result["draining"]:
        gate = result["gate"]
        what = "encryption is on" if result["enabled"] else "encrypted connections are left"
        if gate["trouble"]:
            raise OperatorError(f"{what}, but the iptables rules or the fence cannot be watched: {gate['trouble']}")
        if not gate["rules_in_place"]:
            raise OperatorError(f"{what}, but the iptables rules are not in place: see the daemon's log")
        if gate["fence"] == "broken":
            raise OperatorError(f"{what}, but the fence is not in place: see the daemon's log")
        if gate["fence"] == "unseen":
            raise OperatorError(f"{what}, but the kernel does not show whether the fence is in place: {_SEE}")
        for one in result["uncovered"]:
            if one["sure"]:
                raise OperatorError(f"{what}, but {_uncovered(one)}, which is not covered, so in plaintext: {_ADD}")
    return _headline(result)


def plaintext(peers: Sequence[PlaintextPeer], width: int | None = None) -> list[str]:
    """Lines that name the connections in plaintext; none if there are none."""
    if not peers:
        return []
    shown = [one["peer"] + (" (allow_plaintext)" if one["allowed"] else "") for one in peers]
    return ["", *text.wrapped("plaintext", f"{text.plural(len(shown), 'connection')}: {', '.join(shown)}", width)]


def uncovered(result: Status, width: int | None = None) -> list[str]:
    """Lines that name MultiChain's sockets on ports that no rule covers; none if there are none."""
    if not result["uncovered"]:
        return []
    ports = ", ".join(map(str, result["ports"]))
    lines = ["", *text.wrapped("NOT COVERED", f"MultiChain on other ports than {ports}: plaintext", width)]
    for one in result["uncovered"]:
        lines += text.wrapped("", _uncovered(one) + ("" if one["sure"] else " (if that is the node)"), width)
    return [*lines, *text.wrapped("", _ADD, width)]


def changed_keys(result: Status, width: int | None = None) -> list[str]:
    """Lines that name the addresses at which another key answers than before; none if there are none."""
    lines = []
    for one in result["changed_keys"]:
        now, before = one["other_name"] or one["other_key"], one["name"] or one["key"]
        what = "refused" if one["pinned"] else "believed"
        lines += text.wrapped("KEY CHANGED", f"{one['address']}: {before} before, now {now}, {what}", width)
    return ["", *lines] if lines else []


def own_addresses(result: Status, width: int | None = None) -> list[str]:
    """Lines that name the addresses at which this node dials itself; none if there are none."""
    lines = []
    for one in result["own_addresses"]:
        times = f"{text.plural(one['dials'], 'dial')}, last {text.age(one['last'])} ago"
        what = f"{one['address']} leads back here ({times}); nothing is wrong"
        lines += text.wrapped("own address", what, width)
    return ["", *lines] if lines else []


_ADD = "add the port to ports, or to other_ports if it is another program's"


def _uncovered(one: Uncovered) -> str:
    who = one["owner"] or "a program that cannot be seen from here"
    if one["doing"] == "listens":
        return f"{who} listens on port {one['port']}"
    return f"{who} {'dials' if one['doing'] == 'dials' else 'is connected with'} {one['peer']}"


def _headline(result: Status) -> str:
    if result["enabled"]:
        state = f"on ({result['mode']})"
    elif result["draining"]:
        state = "off: new connections are plaintext, encrypted ones go on until they close"
    else:
        state = "off"
    where = f" in {result['netns']}" if result["netns"] else ""
    daemon = f"daemon {result['version']} ({result['build']}), pid {result['pid']}"
    return f"mcencrypt is {state}{where}; {daemon}, up {text.age(result['uptime'])}"


_SEE = "see `nft list table inet mcencrypt`, and the daemon's log"
_FENCE = {
    "off": "no fence",
    "broken": "the fence is NOT in place",
    "unseen": "whether the fence is in place cannot be seen",
    "standing": "the fence is in place, and whoever flushes nf_tables removes it",
    "owned": "the fence is in place",
}


def _rules(result: Status) -> str:
    gate = result["gate"]
    if gate["trouble"]:
        return gate["trouble"]
    rules = "in place" if gate["rules_in_place"] else "not in place"
    fence = f"only watched: {gate['no_fence']}" if gate["fence"] == "none" else _FENCE[gate["fence"]]
    return f"{rules}; {fence}"


def _other_keys(keys: Sequence[Key]) -> str:
    others = sum(one["accepted"] and not one["offered"] for one in keys)
    return f"; {others} more accepted (`mcencrypt key list`)" if others else ""


def _row(connection: Connection, brief: bool) -> tuple[str, ...]:
    name, identity = connection["name"], connection["identity"]
    who = name or identity or "-"
    return (
        connection["peer"],
        connection["local"],
        connection["state"] + (", stream" if connection["carrier"] == "stream" else ""),
        text.age(connection["age"]),
        text.size(connection["bytes_out"]),
        text.size(connection["bytes_in"]),
        f"{connection['records_out']}/{connection['records_in']}",
        str(connection["retransmissions"]),
        str(connection["auth_failures"]),
        (text.shorten(name, 24) if name else text.key(who)) if brief else who,
    )


def _reasons(refused: Mapping[Reason, int]) -> str:
    ordered = sorted(refused.items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{reason} {count}" for reason, count in ordered if count) or "nothing"


def _queue(queue: Queue) -> str:
    return (
        f"number {queue['number']}, {queue['waiting']} waiting, dropped: {queue['dropped_kernel']} by the kernel, "
        f"{queue['dropped_user']} on the way here, {queue['enobufs']} overruns"
    )
