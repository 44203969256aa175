"""A lab in network namespaces: hosts, links, a strict NAT router, a hostile middlebox, captures of the wire.

Demo, tests and benchmarks are built from it. Needs root and the programs that `missing()` asks for.
"""

from .namespace import LabError, wait_for
from .net import Host, Lab, Offloads, missing
from .process import Process
from .router import Router
from .topology import Pair, TwoHosts, direct_pair, lan, two_hosts
from .wire import Capture, Recording, Segment

__all__ = [
    "Capture",
    "Host",
    "Lab",
    "LabError",
    "Offloads",
    "Pair",
    "Process",
    "Recording",
    "Router",
    "Segment",
    "TwoHosts",
    "direct_pair",
    "lan",
    "missing",
    "two_hosts",
    "wait_for",
]
