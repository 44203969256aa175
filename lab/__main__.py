"""`python -m lab`, as root: two hosts, a NAT router between them, and a Python prompt to try things at."""

from __future__ import annotations

import code
import contextlib
import signal
import sys

from lab import Capture, LabError, missing, transfer, two_hosts, wait_for

from .demo.operators import Operator
from .demo.screen import Screen

PORT = 7331
BANNER = f"""\
hosts       a 10.66.1.2 -- router (masquerades as 10.66.2.1) -- b 10.66.2.2; each has its namespace
            print(a.run(["ip", "addr"]).stdout)     a.namespace is for `ip netns exec` in another terminal
mcencrypt   on() makes a key and switches on at both; then node_a.type("status"), node_b.type("off", "--now")
traffic     transfer(a, b, {PORT}, size=1_000_000).differences
            with Capture(router, "b") as wire: ...              then `mcencrypt decode` reads wire.path
Ctrl-D ends it, and all that was started in it."""


def main() -> int:
    """Returns the exit status: 1 if no lab can be built here."""
    if reason := missing():
        print(f"mcencrypt: {reason}", file=sys.stderr)
        return 1
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 (the prompt's history)
    # an end by SIGTERM cleans up as Ctrl-D does
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with two_hosts() as net:
        node_a, node_b = (Operator(host, [PORT], Screen()) for host in (net.a, net.b))

        def on() -> None:
            """The same new network key on both hosts, and mcencrypt on."""
            node_a.type("keygen", str(node_a.key))
            node_a.copy_key(node_b)
            for node in (node_a, node_b):
                node.type("on")

        names = {"net": net, "a": net.a, "router": net.router, "b": net.b, "node_a": node_a, "node_b": node_b, "on": on}
        tools = {"Capture": Capture, "LabError": LabError, "transfer": transfer, "wait_for": wait_for}
        code.interact(banner=BANNER, local=names | tools, exitmsg="the lab is taken down")
    return 0


if __name__ == "__main__":
    sys.exit(main())
