"""Docker on this host: its userland proxy ends TCP in the middle, and containers have networks of their own."""

from __future__ import annotations

from collections.abc import Iterator

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, warning
from mcencrypt.nodes.processes import Process

_PROXIES = ("docker-proxy", "rootlesskit-dock", "rootlessport", "slirp4netns")


def check_docker(case: Case) -> Iterator[Finding]:
    """Proxies in front of the P2P ports."""
    for process in case.processes():
        if process.name == "docker-proxy":
            yield from _check_proxy(process, case)
        elif process.name in _PROXIES[1:]:
            yield warning(
                "docker.rootless",
                f"{process.name} (pid {process.pid}) runs here: networks of rootless containers end TCP in it",
                "a daemon cannot run in such a container, for want of netfilter queues there; on a host behind it, "
                "`mcencrypt doctor PEER` tells what to set in relayed",
            )
            return


def _check_proxy(process: Process, case: Case) -> Iterator[Finding]:
    options = dict(zip(process.words[1:], process.words[2:], strict=False))
    port = options.get("-host-port", "")
    if not port.isdigit() or int(port) not in case.ports:
        return
    address = options.get("-host-ip", "0.0.0.0")
    goes_to = f"{options.get('-container-ip', '?')}:{options.get('-container-port', '?')}"
    yield warning(
        "docker.proxy",
        f"docker-proxy (pid {process.pid}) listens on {address} port {port} for the container {goes_to}: a connection "
        "that goes through it (from this host itself; over IPv6 to a container without IPv6) ends there",
        "name the gateway of the container's network in relayed there (docker network inspect); or give the container "
        'IPv6 if peers use it, and set "userland-proxy": false in /etc/docker/daemon.json',
    )
    if not any(one.name == "multichaind" for one in case.processes()):
        yield note(
            "docker.published",
            f"port {port} is published for a container",
            "mcencrypt has to be in the container's network: sidecar, or `mcencrypt daemon --netns docker:CONTAINER`",
        )
