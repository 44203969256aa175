"""A lab in network namespaces: hosts, links, a strict NAT router, a hostile middlebox, captures of the wire.

Demo, tests and benchmarks are built from it. Needs root and the programs that `missing()` asks for.

What follows is loaded when it is asked for: programs that run on hosts of the lab (`lab.apps`, `lab.node`) are of this
package as well, start a thousand times in the tests, and need none of it.
"""

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .host import Host, Offloads
    from .middlebox import Interrupted, Middlebox, interrupted_pair
    from .namespace import PATIENCE, LabError, wait_for
    from .net import Lab, missing
    from .process import Process
    from .router import Router
    from .topology import Pair, TwoHosts, direct_pair, lan, two_hosts, two_links
    from .transfers import Result, Running, measure, start, transfer
    from .wire import Capture, Recording, Segment

_WHERE = {
    "host": ("Host", "Offloads"),
    "middlebox": ("Interrupted", "Middlebox", "interrupted_pair"),
    "namespace": ("PATIENCE", "LabError", "wait_for"),
    "net": ("Lab", "missing"),
    "process": ("Process",),
    "router": ("Router",),
    "topology": ("Pair", "TwoHosts", "direct_pair", "lan", "two_hosts", "two_links"),
    "transfers": ("Result", "Running", "measure", "start", "transfer"),
    "wire": ("Capture", "Recording", "Segment"),
}
_MODULE = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "PATIENCE",
    "Capture",
    "Host",
    "Interrupted",
    "Lab",
    "LabError",
    "Middlebox",
    "Offloads",
    "Pair",
    "Process",
    "Recording",
    "Result",
    "Router",
    "Running",
    "Segment",
    "TwoHosts",
    "direct_pair",
    "interrupted_pair",
    "lan",
    "measure",
    "missing",
    "start",
    "transfer",
    "two_hosts",
    "two_links",
    "wait_for",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_MODULE[name]}", __name__), name)
