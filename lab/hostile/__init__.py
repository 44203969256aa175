"""A network that behaves badly, as a table of scenarios: each a path, and what both kinds of TCP make of it.

`benchmarks/hostile` plays all of them, `tests/real/test_matrix.py` a few.
"""

from .judge import Judgement, Verdict, play
from .network import SHAPES, Network, Shape, hostile_network
from .scenario import Scenario, Stage, Traffic
from .table import GROUPS, SCENARIOS

__all__ = [
    "GROUPS",
    "SCENARIOS",
    "SHAPES",
    "Judgement",
    "Network",
    "Scenario",
    "Shape",
    "Stage",
    "Traffic",
    "Verdict",
    "hostile_network",
    "play",
]
