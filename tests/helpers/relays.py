"""Real programs that end TCP on their way: each listens on a host of the lab, and dials on for whoever comes."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

import pytest

from lab import Host, Lab, Middlebox, Process, wait_for
from lab.middlebox import Behaviour, insert, passing


@dataclass(frozen=True)
class Leg:
    """An address and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def socat(host: Host, listen: Leg, to: Leg) -> Process:
    """One process per connection; reads and writes 8 KB at a time."""
    family = "TCP6" if ":" in listen.address else "TCP4"
    bind = f"{family}-LISTEN:{listen.port},bind={_bare(listen)},fork,reuseaddr,backlog=1024"
    return host.spawn(["socat", bind, f"{'TCP6' if ':' in to.address else 'TCP4'}:{to}"])


def _bare(leg: Leg) -> str:
    return f"[{leg.address}]" if ":" in leg.address else leg.address


def haproxy(host: Host, listen: Leg, to: Leg) -> Process:
    """TCP mode, as in front of a service."""
    config = host.lab.directory / f"haproxy-{host.name}-{listen}.cfg"
    config.write_text(
        "global\n  maxconn 4000\n"
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5m\n  timeout server 5m\n"
        f"listen p2p\n  bind {listen}\n  server node {to}\n"
    )
    return host.spawn(["haproxy", "-db", "-f", config])


def nginx(host: Host, listen: Leg, to: Leg) -> Process:
    """The stream module, which knows no half-closed connections."""
    directory = host.lab.directory / f"nginx-{host.name}-{listen}"
    directory.mkdir(exist_ok=True)
    config = directory / "nginx.conf"
    config.write_text(
        "load_module /usr/lib/nginx/modules/ngx_stream_module.so;\ndaemon off;\nuser root;\nworker_processes 1;\n"
        f"pid {directory}/pid;\nerror_log {directory}/error.log;\n"
        "events { worker_connections 4096; }\n"
        f"stream {{ server {{ listen {listen}; proxy_pass {to}; }} }}\n"
    )
    return host.spawn(["nginx", "-p", directory, "-c", config])


RELAYS: Final[dict[str, Callable[[Host, Leg, Leg], Process]]] = {"socat": socat, "haproxy": haproxy, "nginx": nginx}
MISSING: Final = [kind for kind in RELAYS if shutil.which(kind, path="/usr/sbin:/usr/bin:/sbin:/bin") is None]
needs_relays = pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}")


def start_relay(kind: str, host: Host, listen: Leg, to: Leg) -> Process:
    """Start one and wait until it listens."""
    process = RELAYS[kind](host, listen, to)

    def listening() -> bool:
        if process.exit_code is not None:
            process.failed(f"{kind} has ended")
        return bool(host.run(["ss", "-Hltn", "src", str(listen)]).stdout.strip())

    wait_for(listening, f"{kind} to listen at {listen}")
    return process


@dataclass(frozen=True)
class Way:
    """Host a -- middlebox -- relay -- host b: 10.66.1.0/24 and fd66:1::/64 before the relay, .2 and :2 behind it."""

    lab: Lab
    a: Host
    box: Middlebox
    relay: Host
    b: Host


@contextlib.contextmanager
def way(behaviour: Behaviour = passing) -> Iterator[Way]:
    """A path with a host for relays on it, and a middlebox before that."""
    with Lab() as lab:
        a, relay, b = lab.host("a"), lab.host("relay"), lab.host("b")
        box = insert(lab, a, relay)
        lab.link(relay, "inner", b, "eth0")
        for host, interface, net, last in (
            (a, "eth0", 1, 2),
            (relay, "eth0", 1, 1),
            (relay, "inner", 2, 1),
            (b, "eth0", 2, 2),
        ):
            lab.assign(host, interface, f"10.66.{net}.{last}/24", f"fd66:{net}::{last}/64")
        with Middlebox(box, behaviour) as running:
            yield Way(lab, a, running, relay, b)
