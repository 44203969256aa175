"""Real programs that end TCP on their way: each listens on a host of the lab, and dials on for whoever comes."""

from __future__ import annotations

import contextlib
import json
import shutil
import socket
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .host import Host
from .namespace import PATIENCE, run, wait_for
from .process import Process


@dataclass(frozen=True)
class Leg:
    """An address and a port."""

    address: str
    port: int

    def __str__(self) -> str:
        return f"[{self.address}]:{self.port}" if ":" in self.address else f"{self.address}:{self.port}"


def socat(host: Host, listen: Leg, to: Leg, piece: int = 8192) -> Process:
    """One process per connection; reads and writes at most `piece` bytes at a time."""
    family = "TCP6" if ":" in listen.address else "TCP4"
    bind = f"{family}-LISTEN:{listen.port},bind={_bare(listen)},fork,reuseaddr,backlog=1024"
    return host.spawn(["socat", "-t", "60", "-b", piece, bind, f"{'TCP6' if ':' in to.address else 'TCP4'}:{to}"])


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


def docker_proxy(host: Host, listen: Leg, to: Leg) -> Process:
    """Docker's userland proxy, which dockerd starts for each published port."""
    words: list[object] = ["-proto", "tcp", "-host-ip", listen.address, "-host-port", listen.port]
    words += ("-container-ip", to.address, "-container-port", to.port)
    # it tells whoever started it, by the descriptor 3, that it listens
    return host.spawn(["sh", "-c", 'exec "$@" 3>/dev/null', "sh", "docker-proxy", *words])


def ssh(host: Host, listen: Leg, to: Leg) -> Process:
    """`ssh -L`: its client and its server, on one host, each ending TCP."""
    folder = host.lab.directory / f"ssh-{host.name}"
    if not folder.exists():
        folder.mkdir(mode=0o700)
        for name in ("host", "user"):
            run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)])
        shutil.copy(folder / "user.pub", folder / "authorized")
        (folder / "authorized").chmod(0o600)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    port = 10000 + listen.port
    settings = {
        "Port": port, "ListenAddress": "127.0.0.1", "HostKey": folder / "host", "UsePAM": "no", "PidFile": "none",
        "AuthorizedKeysFile": folder / "authorized", "StrictModes": "no", "PermitRootLogin": "yes",
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    host.spawn([shutil.which("sshd", path=_PROGRAMS) or "sshd", "-D", "-e", "-f", "/dev/null", *words])
    host.wait_listening(port)
    return host.spawn(
        ["ssh", "-N", "-F", "/dev/null", "-i", folder / "user", "-p", port, "-o", "StrictHostKeyChecking=no",
         "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes", "-o", "ExitOnForwardFailure=yes",
         "-L", f"{_bare(listen)}:{listen.port}:{_bare(to)}:{to.port}", "root@127.0.0.1"],
    )  # fmt: skip


def slirp4netns(host: Host, inside: Host, port: int) -> Process:
    """The network of rootless containers: the only way out of `inside`, whose `port` it publishes on `host`.

    What comes in comes to SLIRP_INSIDE, from the addresses of `host`.
    """
    api = host.lab.directory / f"slirp-{inside.name}.sock"
    api.unlink(missing_ok=True)
    process = host.spawn(
        ["slirp4netns", "--configure", "--mtu=1500", "--netns-type=path", f"--api-socket={api}",
         f"/run/netns/{inside.namespace}", "tap0"]
    )  # fmt: skip

    words = {"proto": "tcp", "host_addr": "0.0.0.0", "host_port": port, "guest_addr": SLIRP_INSIDE, "guest_port": port}
    with socket.socket(socket.AF_UNIX) as asking:
        asking.settimeout(PATIENCE)

        def ready() -> bool:
            _alive(process)
            # its file is there before it listens
            with contextlib.suppress(FileNotFoundError, ConnectionRefusedError):
                asking.connect(str(api))
                return True
            return False

        wait_for(ready, "slirp4netns to start")
        asking.sendall(json.dumps({"execute": "add_hostfwd", "arguments": words}).encode())
        asking.shutdown(socket.SHUT_WR)
        answer = asking.recv(1000)
    if b"return" not in answer:
        process.failed(f"it does not publish port {port}: {answer!r}")
    return process


def pasta(host: Host, inside: Host, port: int) -> Process:
    """The other one: `inside` has the addresses of `host`, and sees its peers under their own."""
    process = host.spawn(
        ["pasta", "--foreground", "--runas", "0:0", "--config-net", "--netns-only", "--mtu", 1500,
         "--ns-ifname", "tap0", "--tcp-ports", port, "--tcp-ns", "none", "--udp-ports", "none", "--udp-ns", "none",
         "--netns", f"/run/netns/{inside.namespace}"]
    )  # fmt: skip

    def ready() -> bool:
        _alive(process)
        return host.listening(port) and inside.run(["ip", "address", "show", "tap0"], check=False).returncode == 0

    wait_for(ready, "pasta to start")
    return process


def _alive(process: Process) -> None:
    if process.exit_code is not None:
        process.failed("it has ended")


#: The address that slirp4netns gives to what is behind it.
SLIRP_INSIDE: Final = "10.0.2.100"
_PROGRAMS: Final = "/usr/sbin:/usr/bin:/sbin:/bin"
RELAYS: Final[dict[str, Callable[..., Process]]] = {"socat": socat, "haproxy": haproxy, "nginx": nginx}
#: What ends TCP besides: programs, and those that each needs.
TUNNELS: Final[dict[str, Callable[..., Process]]] = {"docker-proxy": docker_proxy, "ssh": ssh}
#: The only way out of a network namespace, and in by a published port.
ROOTLESS: Final[dict[str, Callable[[Host, Host, int], Process]]] = {"slirp4netns": slirp4netns, "pasta": pasta}
_NEEDS: Final = {"ssh": ("ssh", "sshd", "ssh-keygen")}


def absent(kind: str) -> list[str]:
    """The programs that a relay of that kind needs and that are not installed."""
    return [one for one in _NEEDS.get(kind, (kind,)) if shutil.which(one, path=_PROGRAMS) is None]


def start_relay(kind: str, host: Host, listen: Leg, to: Leg, **how: int) -> Process:
    """Start one and wait until it listens; `how`: more that this kind takes."""
    process = (RELAYS | TUNNELS)[kind](host, listen, to, **how)

    def listening() -> bool:
        if process.exit_code is not None:
            process.failed(f"{kind} has ended")
        return bool(host.run(["ss", "-Hltn", "src", str(listen)]).stdout.strip())

    wait_for(listening, f"{kind} to listen at {listen}")
    return process
