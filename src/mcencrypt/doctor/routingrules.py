"""The rules of policy routing (ip-rule(8)), as pyroute2 reads them."""

from __future__ import annotations

from socket import AF_INET, AF_INET6
from typing import NamedTuple

Span = tuple[int, int]


class RoutingRule(NamedTuple):
    """One rule of ``ip rule``; what it does not go by is None."""

    family: int
    priority: int
    table: int
    uids: Span | None
    source_ports: Span | None
    destination_ports: Span | None

    @property
    def described(self) -> str:
        """In words."""
        spans = {"users": self.uids, "source ports": self.source_ports, "destination ports": self.destination_ports}
        said = [f"{name} {_text(span)}" for name, span in spans.items() if span]
        return f"{'ip -6' if self.family == AF_INET6 else 'ip'} rule {self.priority} (table {self.table}) goes by " + (
            " and ".join(said)
        )


def read_rules() -> list[RoutingRule]:
    """The rules of this network namespace. Raises OSError.

    pyroute2 reads them: where start time does not matter it knows every attribute, and we need not.
    """
    from pyroute2 import IPRoute
    from pyroute2.netlink.exceptions import NetlinkError

    found = []
    try:
        with IPRoute() as routing:
            for family in (AF_INET, AF_INET6):
                found += [_rule(family, message) for message in routing.get_rules(family=family)]
    except NetlinkError as error:
        raise OSError(error.code, "rules of routing cannot be read") from None
    return found


def _rule(family: int, message: object) -> RoutingRule:
    get = message.get_attr  # type: ignore[attr-defined]  # pyroute2 has no types
    uids, source, destination = (_span(get(f"FRA_{name}")) for name in ("UID_RANGE", "SPORT_RANGE", "DPORT_RANGE"))
    return RoutingRule(family, int(get("FRA_PRIORITY") or 0), int(get("FRA_TABLE") or 0), uids, source, destination)


def _span(told: object) -> Span | None:
    """``4000:4001``, as pyroute2 gives it."""
    if told is None:
        return None
    low, _, high = str(told).partition(":")
    return int(low), int(high or low)


def _text(span: Span) -> str:
    return str(span[0]) if span[0] == span[1] else f"{span[0]}-{span[1]}"
