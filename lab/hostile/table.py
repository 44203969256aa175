"""All scenarios, in the order of the table."""

from __future__ import annotations

from typing import Final

from . import cutting, delay, ends, firewalls, forgery, loss, order, strangers
from .scenario import Scenario

#: By heading.
GROUPS: Final[dict[str, tuple[Scenario, ...]]] = {
    "Loss": loss.SCENARIOS,
    "Delay": delay.SCENARIOS,
    "Order and repetition": order.SCENARIOS,
    "Segments cut and joined": cutting.SCENARIOS,
    "Firewalls and routers": firewalls.SCENARIOS,
    "Forgery on the path": forgery.SCENARIOS,
    "Strangers who send": strangers.SCENARIOS,
    "Ends": ends.SCENARIOS,
}
SCENARIOS: Final = tuple(scenario for group in GROUPS.values() for scenario in group)
