"""What the benchmarks measure with: clocks, processor time, iperf3, round trips and connections between lab hosts."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from lab import Host, LabError

_TICK = os.sysconf("SC_CLK_TCK")


@contextlib.contextmanager
def awake() -> Iterator[None]:
    """Processors stay out of sleep while this lasts.

    Otherwise a round trip on an idle machine is mostly the time that a processor takes to wake up, five times as long
    as all the rest (PM QoS: Documentation/power/pm_qos_interface.rst).
    """
    with contextlib.ExitStack() as held:
        try:
            request = held.enter_context(open("/dev/cpu_dma_latency", "wb", buffering=0))
            request.write(bytes(4))  # 0 us, until the file is closed
        except OSError as problem:
            print(f"note: /dev/cpu_dma_latency: {problem.strerror}: latencies include waking up", file=sys.stderr)
        yield


def cpu_seconds(pids: Iterable[int]) -> float:
    """Processor time that these processes, and those that they have waited for, have used."""
    total = 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError):
            total += sum(map(int, Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11:15]))
    return total / _TICK


def resident(pid: int) -> int:
    """Bytes of a process that are in memory (proc_pid_statm(5))."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def switches(pid: int) -> int:
    """How often a process has gone to sleep so far (voluntary context switches, proc_pid_status(5))."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("voluntary_ctxt_switches"):
            return int(line.split()[1])
    return 0


def family(roots: Iterable[int]) -> list[int]:
    """These processes and all their descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], list(roots)
    while waiting:
        pid = waiting.pop()
        found.append(pid)
        waiting += children.get(pid, [])
    return found


def iperf3(
    client: Host,
    server: Host,
    address: str,
    port: int,
    serves: int,
    seconds: float,
    streams: int,
    reverse: bool = False,
) -> dict[str, float]:
    """What the receiver counted; the server listens on `serves`, which `port` at `address` leads to."""
    serving = server.spawn(["iperf3", "--server", "--one-off", "--port", serves, "--forceflush"])
    try:
        serving.wait_for("Server listening")
        words = ["--time", f"{seconds:g}", "--parallel", streams, "--json", *(["--reverse"] if reverse else [])]
        done = client.run(["iperf3", "--client", address, "--port", port, *words], timeout=seconds + 60, check=False)
        report = json.loads(done.stdout)
        if "error" in report:
            raise LabError(f"iperf3: {report['error']}")
        return dict(report["end"]["sum_received"])
    except ValueError:
        raise LabError(f"iperf3: exit {done.returncode}: {done.stderr.strip() or done.stdout.strip()}") from None
    finally:
        serving.stop()


def processor() -> str:
    """Its name, as the kernel knows it."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return "unknown"
