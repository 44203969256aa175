"""`python -m lab.demo`, as root. With MULTICHAIND=FOLDER it runs two real MultiChain nodes."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable

from lab import LabError, TwoHosts, missing

from . import multichain
from .nodes import LabNodes, Nodes
from .screen import Screen
from .story import run


def main() -> int:
    """Returns the exit status: 0 if everything that was shown held."""
    if reason := missing():
        print(f"mcencrypt: {reason}: as root, `make demo` installs what is missing", file=sys.stderr)
        return 1
    # the demo has settings of its own, whatever the machine it runs on uses
    for name in [name for name in os.environ if name.startswith("MCENCRYPT_")]:
        if name != "MCENCRYPT_IPTABLES":
            del os.environ[name]
    # an end by SIGTERM cleans up as Ctrl-C does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    make: Callable[[TwoHosts], Nodes] = LabNodes
    if folder := os.environ.get("MULTICHAIND"):
        try:
            programs = multichain.find(folder)
        except LabError as problem:
            print(f"mcencrypt: {problem}", file=sys.stderr)
            return 1
        make = lambda net: multichain.MultiChainNodes(net, programs)  # noqa: E731
    screen = Screen()
    screen.title("mcencrypt: two nodes that know nothing of it, and one command on each host")
    try:
        return run(make, screen)
    except KeyboardInterrupt:
        print("\nmcencrypt: interrupted; the lab is taken down", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
