"""A lab in network namespaces: hosts, links, a strict NAT router, a hostile middlebox, captures of the wire.

Demo, tests and benchmarks are built from it. Needs root and the programs that `missing()` asks for.
"""

from .host import Host, Offloads
from .middlebox import Interrupted, Middlebox, interrupted_pair
from .namespace import PATIENCE, LabError, wait_for
from .net import Lab, missing
from .process import Process
from .router import Router
from .topology import Pair, TwoHosts, direct_pair, lan, two_hosts, two_links
from .transfer import Result, Running, measure, start, transfer
from .wire import Capture, Recording, Segment

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
