"""Docker on this host: its userland proxy ends TCP in the middle, and containers have networks of their own."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, warning
from mcencrypt.nodes.processes import has_address

_ROOTLESS = ("rootlesskit-dock", "rootlessport", "slirp4netns")


class _Published(NamedTuple):
    """A P2P port that docker-proxy passes on to a container."""

    port: str
    #: ADDRESS:PORT of the container.
    goes_to: str
    #: The container is this host, as `mcencrypt` sees it: the proxy runs outside.
    inside: bool


def check_docker(case: Case) -> Iterator[Finding]:
    """Proxies in front of the P2P ports."""
    rootless = next((one for one in case.processes() if one.name in _ROOTLESS and case.is_here(one)), None)
    if rootless:
        yield warning(
            "docker.rootless",
            f"{rootless.name} (pid {rootless.pid}) runs here: networks of rootless containers end TCP in it",
            "a daemon cannot run in such a container, for want of netfilter queues there; on a host behind it, "
            "`mcencrypt doctor PEER` tells what to set in relayed",
        )
        return
    published = _published(case)
    for one, listening in published.items():
        yield _proxy(one, listening)
    if any(one.inside for one in published) or any(one.name == "multichaind" for one in case.processes()):
        return
    for port in dict.fromkeys(one.port for one in published):
        yield note(
            "docker.published",
            f"port {port} is published for a container",
            "mcencrypt has to be in the container's network: sidecar, or `mcencrypt daemon --netns docker:CONTAINER`",
        )


def _published(case: Case) -> dict[_Published, list[str]]:
    """What docker-proxy passes on from here, or to here; and the addresses at which it listens for that."""
    found: dict[_Published, list[str]] = {}
    for process in case.processes():
        if process.name != "docker-proxy":
            continue
        options = dict(zip(process.words[1:], process.words[2:], strict=False))
        port, container = options.get("-host-port", ""), options.get("-container-ip", "?")
        here = case.is_here(process)
        inside = not here and has_address(case.machine, container)
        if (here or inside) and port.isdigit() and int(port) in case.ports:
            one = _Published(port, f"{container}:{options.get('-container-port', '?')}", inside)
            found.setdefault(one, []).append(f"{options.get('-host-ip', '0.0.0.0')} (pid {process.pid})")
    return found


def _proxy(one: _Published, listening: list[str]) -> Finding:
    return warning(
        "docker.proxy",
        f"docker-proxy listens on port {one.port} of {' and '.join(listening)} for the container {one.goes_to}: a "
        f"connection that goes through it (from {'the' if one.inside else 'this'} host itself; over IPv6 to a "
        "container without IPv6) ends there",
        f"name the gateway of the container's network in relayed {'here' if one.inside else 'there'} (docker network "
        'inspect); or give the container IPv6 if peers use it, and set "userland-proxy": false in '
        "/etc/docker/daemon.json",
    )
