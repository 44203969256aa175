"""Other programs that change a host's rules, from their start to their end, each with files and processes of its own.

They run in the network namespace of a host of the lab, and in mount and process namespaces that end with them, so
the machine's own configuration is not touched.
"""

from __future__ import annotations

import os
import shutil
from typing import Final, NamedTuple

from lab import Process
from tests.helpers.nodes import PORTS, Node


class Program(NamedTuple):
    """`tool` is what must be installed, `script` what it does, as a shell has it. $0 is an empty folder."""

    tool: str
    script: str


_UFW: Final = Program(
    "ufw",
    f"""
cp -a /etc/ufw "$0/ufw" && mount --bind "$0/ufw" /etc/ufw
cp /etc/default/ufw "$0/default" && mount --bind "$0/default" /etc/default/ufw
ufw allow {PORTS[0]}:{PORTS[-1]}/tcp
ufw --force enable
iptables-save | grep -q ufw-user-input
ufw reload
/lib/ufw/ufw-init flush-all
ufw disable
ufw --force reset
! iptables-save | grep -q -- '-A ufw-'
""",
)


def _firewalld(backend: str, shown: str) -> Program:
    return Program(
        "firewalld",
        f"""
cp -a /etc/firewalld "$0/firewalld" && mount --bind "$0/firewalld" /etc/firewalld
sed -i 's/^DefaultZone=.*/DefaultZone=trusted/; s/^FirewallBackend=.*/FirewallBackend={backend}/' \\
    /etc/firewalld/firewalld.conf
mkdir /run/dbus
dbus-daemon --system --nofork --nopidfile &
until [ -S /run/dbus/system_bus_socket ]; do sleep 0.05; done
for round in 1 2; do
    firewalld --nofork --nopid & pid=$!
    until firewall-cmd --state; do sleep 0.5; kill -0 $pid; done
    {shown}
    # ebtables-restore, which it calls, may stumble over what is changed meanwhile, as our rules are that come back
    until firewall-cmd --reload; do sleep 0.5; kill -0 $pid; done
    until firewall-cmd --complete-reload; do sleep 0.5; kill -0 $pid; done
    kill $pid; wait $pid || true
done
""",
    )


_DOCKER: Final = Program(
    "dockerd",
    """
echo {} >"$0/daemon.json"
export DOCKER_HOST="unix://$0/docker.sock"
for round in 1 2; do
    dockerd --data-root="$0/data" --exec-root="$0/exec" --pidfile="$0/pid" --config-file="$0/daemon.json" \\
        --host="$DOCKER_HOST" & pid=$!
    until docker version; do sleep 0.1; kill -0 $pid; done
    iptables-save | grep -q -- '-A FORWARD -j DOCKER-USER'
    docker network create "net$round"
    kill $pid; wait $pid || true
done
""",
)
#: Debian's file, and what `systemctl stop nftables` does.
_NFTABLES: Final = Program(
    "nft",
    """
nft -f - <<END
flush ruleset

table inet filter {
    chain input { type filter hook input priority filter; }
    chain forward { type filter hook forward priority filter; }
    chain output { type filter hook output priority filter; }
}
END
nft list table inet filter
nft flush ruleset
""",
)

#: By name.
PROGRAMS: Final = {
    "ufw": _UFW,
    "firewalld": _firewalld("nftables", "nft list table inet firewalld >/dev/null"),
    "firewalld with iptables": _firewalld("iptables", "iptables-save | grep -q IN_trusted"),
    "docker": _DOCKER,
    "nftables": _NFTABLES,
}


def missing(program: Program) -> str:
    """What is not installed, "" if it can run."""
    needed = [program.tool, *(["dbus-daemon"] if program.tool == "firewalld" else [])]
    paths = f"{os.environ['PATH']}:/usr/sbin:/sbin"
    return " ".join(one for one in needed if not shutil.which(one, path=paths))


def begin(node: Node, program: Program) -> Process:
    """Start it on that host; it ends by itself, with 0 unless something failed."""
    folder = node.directory / "firewall"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    apart = ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
    script = f"mount -t tmpfs tmpfs /run\n{program.script}"
    return node.host.spawn(
        [*apart, "sh", "-exc", script, folder], env={"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    )
