"""Docker on this host: its userland proxy ends TCP in the middle, and containers have networks of their own."""

from __future__ import annotations

from collections.abc import Iterator

from mcencrypt.doctor.case import Case
from mcencrypt.doctor.finding import Finding, note, warning
from mcencrypt.nodes.processes import has_address

_PROXIES = ("docker-proxy", "rootlesskit-dock", "rootlessport", "slirp4netns")


def check_docker(case: Case) -> Iterator[Finding]:
    """Proxies in front of the P2P ports."""
    proxies: dict[tuple[str, str], list[str]] = {}
    inside = False
    for process in case.processes():
        here = case.is_here(process)
        if process.name == "docker-proxy":
            options = dict(zip(process.words[1:], process.words[2:], strict=False))
            port, container = options.get("-host-port", ""), options.get("-container-ip", "?")
            leads_here = not here and has_address(case.machine, container)
            if (here or leads_here) and port.isdigit() and int(port) in case.ports:
                goes_to = f"{container}:{options.get('-container-port', '?')}"
                shown = f"{options.get('-host-ip', '0.0.0.0')} (pid {process.pid})"
                proxies.setdefault((port, goes_to), []).append(shown)
                inside |= leads_here
        elif process.name in _PROXIES[1:] and here:
            yield warning(
                "docker.rootless",
                f"{process.name} (pid {process.pid}) runs here: networks of rootless containers end TCP in it",
                "a daemon cannot run in such a container, for want of netfilter queues there; on a host behind it, "
                "`mcencrypt doctor PEER` tells what to set in relayed",
            )
            return
    for (port, goes_to), listening in proxies.items():
        yield from _proxy(port, goes_to, listening, inside)
    served = inside or any(one.name == "multichaind" for one in case.processes())
    for port in dict.fromkeys(port for port, _ in proxies):
        if not served:
            yield note(
                "docker.published",
                f"port {port} is published for a container",
                "mcencrypt has to be in the container's network: sidecar, or `mcencrypt daemon --netns "
                "docker:CONTAINER`",
            )


def _proxy(port: str, goes_to: str, listening: list[str], inside: bool) -> Iterator[Finding]:
    yield warning(
        "docker.proxy",
        f"docker-proxy listens on port {port} of {' and '.join(listening)} for the container {goes_to}: a connection "
        f"that goes through it (from {'the' if inside else 'this'} host itself; over IPv6 to a container without IPv6) "
        "ends there",
        f"name the gateway of the container's network in relayed {'here' if inside else 'there'} (docker network "
        'inspect); or give the container IPv6 if peers use it, and set "userland-proxy": false in '
        "/etc/docker/daemon.json",
    )
