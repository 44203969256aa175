"""A network in a box: hosts in network namespaces, joined by links, gone again afterwards."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import tempfile
from pathlib import Path
from typing import Self, TypeVar

from . import namespace
from .host import Host, Offloads
from .namespace import LabError, run
from .process import Process

__all__ = ["Host", "Lab", "Offloads", "missing"]

TOOLS = {
    "ip": "iproute2",
    "tc": "iproute2",
    "ethtool": "ethtool",
    "iptables": "iptables",
    "ip6tables": "iptables",
    "conntrack": "conntrack",
}


def missing() -> str | None:
    """Why no lab can be built here, or None if one can."""
    if os.geteuid():
        return "the lab needs root (network namespaces, iptables)"
    for tool, package in TOOLS.items():
        if not shutil.which(tool):
            return f"the lab needs {tool} (apt install {package})"
    return None


AnyHost = TypeVar("AnyHost", bound=Host)


class Lab:
    """Makes hosts and links, and takes everything down when its context ends, however it ends.

    Several labs may exist at the same time, in one process or many.
    """

    def __init__(self) -> None:
        if reason := missing():
            raise LabError(reason)
        self.name = secrets.token_hex(3)
        self.hosts: list[Host] = []
        self.processes: list[Process] = []
        namespace.sweep()
        #: Logs and captures; deleted with the lab.
        self.directory = Path(tempfile.mkdtemp(prefix=f"{namespace.owner()}-"))

    def host(self, name: str) -> Host:
        """A new host, with lo only."""
        return self.add(Host, name)

    def add(self, kind: type[AnyHost], name: str) -> AnyHost:
        """A new host of that kind."""
        return kind(self, name)

    def link(
        self,
        one: Host,
        one_interface: str,
        other: Host,
        other_interface: str,
        *,
        mtu: int = 1500,
        one_offloads: Offloads | None = None,
        other_offloads: Offloads | None = None,
    ) -> None:
        """Join two hosts by a veth pair, up at both ends, without addresses."""
        run(
            [
                "ip",
                "link",
                "add",
                "name",
                one_interface,
                "netns",
                one.namespace,
                "mtu",
                str(mtu),
                "type",
                "veth",
                "peer",
                "name",
                other_interface,
                "netns",
                other.namespace,
                "mtu",
                str(mtu),
            ]
        )
        for host, interface, offloads in (
            (one, one_interface, one_offloads),
            (other, other_interface, other_offloads),
        ):
            host.quiet(interface)
            host.offload(interface, offloads or Offloads())
            host.interfaces.setdefault(interface, [])
            host.ip("link", "set", "dev", interface, "up")

    def assign(self, host: Host, interface: str, *addresses: str) -> None:
        """Give addresses with prefix length, IPv4 or IPv6, to an interface; usable at once."""
        for address in addresses:
            host.ip("address", "add", address, "dev", interface, *(["nodad"] if ":" in address else []))
            host.interfaces[interface].append(address)

    def log_file(self, *words: str) -> Path:
        """A new file name in the lab's directory."""
        return self.directory / f"{'-'.join(words)}-{secrets.token_hex(3)}.log"

    def close(self) -> None:
        """End all programs and take all namespaces down.

        Goes on when one step fails, and raises at the end.
        """
        with contextlib.ExitStack() as steps:
            steps.callback(shutil.rmtree, self.directory, ignore_errors=True)
            for host in self.hosts:
                steps.callback(namespace.delete, host.namespace)
            for process in self.processes:
                steps.callback(process.stop)
        self.hosts.clear()
        self.processes.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
