"""Ways from one lab host to another, each on two hosts of its own: plain TCP, the floor, mcencrypt, other tunnels."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lab import LabError, Pair, direct_pair
from lab.demo.operators import Operator
from lab.demo.screen import Screen

from .measuring import family

#: Where servers listen, and where a tunnel's entry does.
SERVES, ENTRY, CROSSES = 7331, 7441, 7551
QUEUE = 77
_FLOOR = Path(__file__).with_name("floor.c")
_RULES = (("raw", "OUTPUT", "!", "-o", "lo"), ("mangle", "INPUT", "!", "-i", "lo"))


class Contender:
    """One way: what a client dials, and which processes carry it."""

    def __init__(self, name: str, pair: Pair, ipv6: bool) -> None:
        self.name, self.pair, self.version = name, pair, 6 if ipv6 else 4
        #: What a client on host a dials to get to `SERVES` on host b.
        self.address, self.port = pair.b.address(self.version), SERVES
        self._pids: list[int] = []

    def pids(self) -> list[int]:
        """The processes of both ends, now."""
        return family(self._pids)


def _floor(contender: Contender, scratch: Path, *words: object) -> None:
    """The C program that does what no daemon behind NFQUEUE can avoid."""
    program = scratch / "floor"
    if not program.exists():
        done = subprocess.run(
            ["cc", "-O3", "-march=native", str(_FLOOR), "-o", str(program), "-lcrypto"], capture_output=True, text=True
        )
        if done.returncode:
            raise LabError(f"the floor does not compile: {done.stderr.strip()}")
    tables = "ip6tables" if contender.version == 6 else "iptables"
    for host in (contender.pair.a, contender.pair.b):
        process = host.spawn([program, words[0], QUEUE, *words[1:]])
        process.wait_for("ready")
        contender._pids.append(process.pid)
        for table, chain, *match in _RULES:
            for way in ("--sport", "--dport"):
                rule = [tables, "-w", "-t", table, "-A", chain, *match, "-p", "tcp", way, SERVES, "-j", "NFQUEUE"]
                host.run([*rule, "--queue-num", QUEUE])


def _mcencrypt(contender: Contender, interpreted: bool) -> None:
    quiet = Screen(io.StringIO())
    operators = [Operator(host, [SERVES], quiet) for host in (contender.pair.a, contender.pair.b)]
    operators[0].ask("keygen", str(operators[0].key))
    operators[0].copy_key(operators[1])
    with _environment(MCENCRYPT_INTERPRETED="1" if interpreted else ""):
        for one in operators:
            one.ask("on")
            contender._pids.append(one.status()["pid"])


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def _openssh(contender: Contender, scratch: Path) -> None:
    """`ssh -L`, with the cipher that is its quickest: one AES-GCM for all connections."""
    folder = scratch / "ssh"
    folder.mkdir(exist_ok=True)
    for name in ("host", "user"):
        if not (folder / name).exists():
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    shutil.copy(folder / "user.pub", folder / "authorized")
    (folder / "authorized").chmod(0o600)
    Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    settings = {
        "Port": CROSSES, "HostKey": folder / "host", "AuthorizedKeysFile": folder / "authorized", "StrictModes": "no",
        "PermitRootLogin": "yes", "UsePAM": "no", "PidFile": "none",
    }  # fmt: skip
    words = [word for name, value in settings.items() for word in ("-o", f"{name}={value}")]
    server = contender.pair.b.spawn([shutil.which("sshd") or "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *words])
    contender.pair.b.wait_listening(CROSSES)
    target = contender.address
    client = contender.pair.a.spawn(
        ["ssh", "-N", "-F", "/dev/null", "-i", folder / "user", "-p", CROSSES, "-c", "aes128-gcm@openssh.com",
         "-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null", "-o", "BatchMode=yes",
         "-L", f"127.0.0.1:{ENTRY}:127.0.0.1:{SERVES}", f"root@{target}"],
    )  # fmt: skip
    contender.pair.a.wait_listening(ENTRY)
    contender.address, contender.port = "127.0.0.1", ENTRY
    contender._pids += [server.pid, client.pid]


def _stunnel(contender: Contender, scratch: Path) -> None:
    folder = scratch / "stunnel"
    folder.mkdir(exist_ok=True)
    pem = folder / "server.pem"
    if not pem.exists():
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days",
             "2", "-subj", "/CN=lab", "-keyout", str(pem), "-out", str(folder / "cert.pem")],
            check=True, capture_output=True,
        )  # fmt: skip
        pem.write_bytes(pem.read_bytes() + (folder / "cert.pem").read_bytes())
    target = f"[{contender.address}]" if contender.version == 6 else contender.address
    common = "foreground = yes\npid =\nsslVersionMin = TLSv1.3\nciphersuites = TLS_AES_256_GCM_SHA384\n"
    server = f"{common}[in]\naccept = :::{CROSSES}\nconnect = 127.0.0.1:{SERVES}\ncert = {pem}\n"
    client = f"{common}[out]\nclient = yes\naccept = 127.0.0.1:{ENTRY}\nconnect = {target}:{CROSSES}\n"
    for host, text, port in ((contender.pair.b, server, CROSSES), (contender.pair.a, client, ENTRY)):
        file = folder / f"{host.name}.conf"
        file.write_text(text)
        process = host.spawn([shutil.which("stunnel") or "stunnel4", file])
        host.wait_listening(port)
        contender._pids.append(process.pid)
    contender.address, contender.port = "127.0.0.1", ENTRY


def compiled() -> bool:
    """Whether this mcencrypt can run compiled."""
    from mcencrypt.core import fast

    return not str(fast.__file__).endswith(".py")


def available() -> dict[str, str]:
    """The contenders that can run here, by name, with what each is; those that cannot are reported on stderr."""
    known = {
        "plain": "plain TCP",
        "rewrite": "floor: rewrite only",
        "floor": "floor: rewrite, AES-256-GCM in 1400 B",
        "floor-large": "floor: rewrite, AES-256-GCM in 8200 B",
        "mcencrypt": "mcencrypt",
        "interpreted": "mcencrypt, interpreted",
        "openssh": "OpenSSH -L, aes128-gcm",
        "stunnel": "stunnel, TLS 1.3 AES-256-GCM",
    }
    needs = {
        "floor": ("cc",),
        "floor-large": ("cc",),
        "rewrite": ("cc",),
        "openssh": ("ssh", "sshd"),
        "stunnel": ("stunnel",),
    }
    path = os.environ.get("PATH", "") + ":/usr/sbin:/sbin"
    for name, programs in needs.items():
        missing = [one for one in programs if shutil.which(one, path=path) is None]
        if missing:
            print(f"note: {known.pop(name)}: {', '.join(missing)} not installed", file=sys.stderr)
    return known


@contextlib.contextmanager
def enter(name: str, title: str, scratch: Path, ipv6: bool, tso: bool, gro: bool) -> Iterator[Contender]:
    """The contender, up and ready to be dialled."""
    with direct_pair(tso=tso, gro=gro) as pair:
        contender = Contender(title, pair, ipv6)
        match name:
            case "rewrite":
                _floor(contender, scratch, "rewrite")
            case "floor":
                _floor(contender, scratch, "seal", 1400)
            case "floor-large":
                _floor(contender, scratch, "seal", 8200)
            case "mcencrypt" | "interpreted":
                _mcencrypt(contender, name == "interpreted")
            case "openssh":
                _openssh(contender, scratch)
            case "stunnel":
                _stunnel(contender, scratch)
        yield contender
