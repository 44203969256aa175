"""A snapshot as Prometheus metrics: names, help and labels.

Labels take values from closed lists only (states, directions, reasons, modes), so the number of time series is fixed.
All of them are always there, at 0 if need be: a counter that only appears with its first event has no increase.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from mcencrypt.core.policy import LEAVES, MODES
from mcencrypt.core.reasons import REASONS
from mcencrypt.core.status import State

if TYPE_CHECKING:
    from mcencrypt.metrics.snapshot import Snapshot

PREFIX: Final = "mcencrypt_"


def families(snapshot: Snapshot) -> Iterator[Metric]:
    """All metrics of one daemon."""
    yield from _daemon(snapshot)
    yield from _connections(snapshot)
    yield from _trouble(snapshot)
    yield from _process(snapshot)


def _daemon(snapshot: Snapshot) -> Iterator[Metric]:
    yield InfoMetricFamily(
        PREFIX + "build",
        "The daemon's version, and whether its packet path is compiled.",
        value={"version": snapshot["version"], "build": snapshot["build"]},
    )
    public = {"identity": snapshot["identity"], "key_id": snapshot["key_id"]}
    yield InfoMetricFamily(PREFIX + "node", "This node's public key, and the network key's id.", value=public)
    yield _gauge("enabled", "1 if new connections are encrypted, 0 if they are plaintext.", snapshot["enabled"])
    yield _gauge("draining", "1 while switched off with encrypted connections left to finish.", snapshot["draining"])
    modes: dict[str, float] = {mode: mode == snapshot["mode"] for mode in MODES}
    yield _gauges("mode", "The policy: 1 for the mode in force.", "mode", modes)


def _connections(snapshot: Snapshot) -> Iterator[Metric]:
    carried, passed, states = snapshot["carried"], snapshot["plaintext_carried"], snapshot["states"]
    yield _gauges(
        "connections",
        "Connections on the P2P ports now. unconfirmed: the peer has yet to prove who it is.",
        "state",
        {state.value: states.get(state, 0) for state in State},
    )
    yield _gauge("streamed", "Encrypted connections now whose handshake was in the stream.", snapshot["streamed"])
    yield _gauge("peers", "Different proven identities among the connections.", snapshot["peers"])
    yield _counter("encrypted_connections", "Connections that were encrypted.", snapshot["encrypted"])
    ran: dict[str, float] = {leave: snapshot["plaintext"].get(leave, 0) for leave in LEAVES}
    yield _counters("plaintext_connections", "Connections that ran in plaintext.", "allowed_by", ran)
    running: dict[str, float] = {leave: snapshot["plaintext_now"].get(leave, 0) for leave in LEAVES}
    yield _gauges(
        "in_plaintext",
        "Connections in plaintext now, by what allows it: the configuration, mode prefer, or being switched off.",
        "allowed_by",
        running,
    )
    yield _counter(
        "health_checks", "Bare connections from addresses in probes, which carried nothing.", snapshot["health_checks"]
    )
    yield _counters(
        "bytes",
        "The applications' bytes in encrypted connections. What arrives or is sent twice counts once.",
        "direction",
        {"in": carried["bytes_in"], "out": carried["bytes_out"]},
    )
    yield _counters(
        "records",
        "Records that carried them (22 bytes of overhead each). What arrives or is sent twice counts once.",
        "direction",
        {"in": carried["records_in"], "out": carried["records_out"]},
    )
    yield _counters(
        "plaintext_bytes",
        "Bytes in connections that ran in plaintext, retransmissions included.",
        "direction",
        {"in": passed["bytes_in"], "out": passed["bytes_out"]},
    )
    yield _counter(
        "retransmissions",
        "Segments or batches that the local sockets sent again in encrypted connections.",
        carried["retransmissions"],
    )


def _trouble(snapshot: Snapshot) -> Iterator[Metric]:
    queue, refused = snapshot["queue"], snapshot["refused"]
    yield _counter(
        "authentication_failures",
        "Records of encrypted connections that did not verify and were dropped.",
        snapshot["carried"]["auth_failures"],
    )
    yield _gauge(
        "changed_keys", "Addresses at which another key answers than the one remembered.", snapshot["changed_keys"]
    )
    reasons: dict[str, int] = {reason: refused.get(reason, 0) for reason in REASONS}
    yield _counters("refused", "Packets dropped and connections refused; docs/operations.md.", "reason", reasons)
    yield _gauge("queue_waiting_packets", "Packets that wait in the kernel for the daemon.", queue["waiting"])
    yield _counters(
        "queue_dropped_packets",
        "Packets that the kernel dropped because the queue or the daemon's socket was full.",
        "full",
        {"queue": queue["dropped_kernel"], "socket": queue["dropped_user"]},
    )
    yield _counter("queue_overruns", "Times that the kernel reported such a loss to the daemon.", queue["enobufs"])
    yield _counter("bad_verdicts", "Packets dropped because of an error inside the daemon.", queue["bad_verdicts"])
    yield _counter(
        "injections_failed", "Packets of the daemon's own that the kernel did not take.", queue["injections_failed"]
    )
    gate = snapshot["gate"]
    yield _gauge("rules_in_place", "1 if the iptables rules were in place seconds ago.", gate["rules_in_place"])
    yield _gauge("fence_in_place", "1 if the fence was at the last look.", gate["fence"] in ("standing", "owned"))
    yield _gauge(
        "peers_list_expires_seconds",
        "When the signed list of peers expires, since 1970; 0 where there is none.",
        snapshot["peers_list_expires"],
    )
    yield _gauge(
        "uncovered_sockets", "Sockets of MultiChain on ports that are not covered: plaintext.", snapshot["uncovered"]
    )
    yield _counter("rules_lost", "Times that another program removed the iptables rules.", snapshot["rules_lost"])
    yield _counter("fence_lost", "Times that another program removed the fence.", gate["fence_lost"])


def _process(snapshot: Snapshot) -> Iterator[Metric]:
    process = snapshot["process"]
    yield CounterMetricFamily("process_cpu_seconds", "CPU time of the daemon.", value=process["cpu"])
    for name, text, value in (
        ("process_resident_memory_bytes", "Resident memory of the daemon.", process["resident"]),
        ("process_virtual_memory_bytes", "Virtual memory of the daemon.", process["virtual"]),
        ("process_open_fds", "Open file descriptors of the daemon.", process["open_fds"]),
        ("process_max_fds", "File descriptors that the daemon may have.", process["max_fds"]),
        ("process_start_time_seconds", "When the daemon started, since 1970.", snapshot["started"]),
    ):
        yield GaugeMetricFamily(name, text, value=value)


def _gauge(name: str, text: str, value: float) -> Metric:
    return GaugeMetricFamily(PREFIX + name, text, value=value)


def _counter(name: str, text: str, value: float) -> Metric:
    return CounterMetricFamily(PREFIX + name, text, value=value)


def _gauges(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _labelled(GaugeMetricFamily(PREFIX + name, text, labels=[label]), values.items())


def _counters(name: str, text: str, label: str, values: Mapping[str, float]) -> Metric:
    return _labelled(CounterMetricFamily(PREFIX + name, text, labels=[label]), values.items())


def _labelled(
    family: GaugeMetricFamily | CounterMetricFamily, values: Iterable[tuple[str, float]]
) -> GaugeMetricFamily | CounterMetricFamily:
    for value, number in values:
        family.add_metric([value], number)
    return family
