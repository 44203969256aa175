"""What the daemon tells the exporter: one dictionary of numbers, the same size whatever goes on.

No address, port or name of a peer is in it: metrics may be read by more people than the control socket.
"""

from __future__ import annotations

import dataclasses
import os
import resource
from typing import Any

from mcencrypt.core.engine import Engine


def engine_numbers(engine: Engine) -> dict[str, Any]:
    """The part that the engine knows; see `core.summary.Summary`."""
    return {
        "mode": engine.policy.mode,
        "key_id": engine.ring.offered.key_id.hex(),
        **dataclasses.asdict(engine.summary()),
        "refused": dict(engine.outcome.refused),
    }


def process_numbers() -> dict[str, float]:
    """This process: CPU seconds, bytes of memory, open file descriptors and how many there may be."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    page = resource.getpagesize()
    with open("/proc/self/statm") as statm:
        virtual, resident = (int(word) * page for word in statm.read().split()[:2])
    return {
        "cpu": used.ru_utime + used.ru_stime,
        "virtual": virtual,
        "resident": resident,
        "open_fds": len(os.listdir("/proc/self/fd")) - 1,  # one of them is this listing's own
        "max_fds": resource.getrlimit(resource.RLIMIT_NOFILE)[0],
    }
