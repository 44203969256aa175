"""The process, set up for packets: memory that is kept, few collections, and its turn before others.

Each packet takes a few buffers of up to 64 KB.  By default glibc maps and unmaps such blocks, and the kernel zeroes
every page again: measured, that alone costs more than encryption (2 instead of 6-7 Gbit/s for a daemon that
accepts everything).  See mallopt(3).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import os
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_TOP_PAD: Final = -2
_M_MMAP_THRESHOLD: Final = -3
_M_ARENA_MAX: Final = -8

#: Bytes of free heap that are kept, and the size from which blocks are still mapped one by one.
KEEP: Final = 16 << 20


def keep_large_buffers() -> bool:
    """Set it for this process; False if the C library has no mallopt (musl), which costs speed alone."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    settings = ((_M_MMAP_THRESHOLD, KEEP), (_M_TRIM_THRESHOLD, KEEP), (_M_TOP_PAD, 1 << 20), (_M_ARENA_MAX, 1))
    results = [mallopt(setting, value) for setting, value in settings]
    return all(results)


def put_packets_first() -> None:
    """Take our turn before ordinary processes, if permitted, and leave what lives for ever to no garbage collector.

    Plain TCP is handled in softirqs, which no process delays; with us in the path each packet waits until this process
    runs, and behind a busy neighbour that is milliseconds.  Measured at 1 % loss, where throughput is one over the
    round trip, real-time scheduling doubles it.  The kernel leaves others their share (sched_rt_runtime_us), and
    children start as ordinary processes.  It takes CAP_SYS_NICE.
    """
    with contextlib.suppress(PermissionError):
        os.sched_setscheduler(0, os.SCHED_RR | os.SCHED_RESET_ON_FORK, os.sched_param(1))
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
