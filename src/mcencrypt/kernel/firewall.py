"""The iptables rules that hand P2P packets to the daemon: put in atomically, watched, taken out again.

Rules live in chains of our own (``MCENCRYPT-...``) in the tables raw and mangle of both families. The text
comes from the templates ``iptables/rules.v4`` and ``rules.v6``; it is written in iptables-save's own order
and spelling, so that what is installed can be compared with it.
"""

from __future__ import annotations

import importlib.resources
import os
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from string import Template

from mcencrypt.errors import OperatorError
from mcencrypt.kernel.iptables import V4, V6, Backend, backends, ipv6_in_kernel
from mcencrypt.kernel.netlink import NETLINK_NETFILTER, Listener
from mcencrypt.kernel.ruleset import Ruleset, State, change, judge

MULTIPORT_MAX = 15
"""Ports that one multiport match takes (XT_MULTI_PORTS in xt_multiport.h)."""

_CHECK_TIMEOUT = 5.0
_INSTALL_ATTEMPTS = 5
_NFNLGRP_NFTABLES = 7
_TEMPLATES = {V4: "rules.v4", V6: "rules.v6"}
_FAMILY_MARK = "# mcencrypt family "
_SAVE_SCRIPT = f"""
while [ $# -gt 0 ]; do
    echo "{_FAMILY_MARK}$1"
    "$2" -t raw || exit
    "$2" -t mangle || exit
    shift 2
done
"""


class Check:
    """A look at the rules that is under way in a subprocess.

    Register `fileno()` for reading in an event loop, and call `poll()` when it is readable.
    """

    def __init__(self, firewall: Firewall, command: Sequence[str]) -> None:
        self._firewall = firewall
        self._deadline = time.monotonic() + _CHECK_TIMEOUT
        self._text = b""
        self._state: State | None = None
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        self._pipe = self._process.stdout
        os.set_blocking(self._pipe.fileno(), False)

    def fileno(self) -> int:
        return self._pipe.fileno()

    def poll(self) -> State | None:
        """The state of the rules, or None while the subprocess runs. Call until not None; never blocks.

        UNKNOWN means that iptables-save failed, or gave no answer within five seconds (call this now and then
        though nothing is readable) and was killed. The descriptor is closed once this has returned a state.
        """
        if self._state is not None:
            return self._state
        while True:
            try:
                chunk = os.read(self._pipe.fileno(), 1 << 16)
            except BlockingIOError:
                if time.monotonic() < self._deadline:
                    return None
                self.cancel()
                return self._state
            if not chunk:
                return self._finish()
            self._text += chunk

    def cancel(self) -> None:
        """Give the check up: the subprocess is killed and reaped."""
        if self._state is None:
            self._process.kill()
            self._finish()
            self._state = State.UNKNOWN

    def _finish(self) -> State:
        self._pipe.close()
        failed = self._process.wait() != 0
        self._state = State.UNKNOWN if failed else self._firewall.judge(_by_family(self._text.decode()))
        return self._state


class Firewall:
    """The rules for a set of ports and one queue.

    In `environ`, MCENCRYPT_IPTABLES names the iptables command to use (default ``iptables`` from PATH).
    """

    def __init__(self, ports: Sequence[int], queue_number: int, environ: Mapping[str, str] = os.environ) -> None:
        self.ports = tuple(ports)
        self.queue_number = queue_number
        self._environ = environ
        self._wanted = {family: Ruleset.parse(text) for family, text in self.render().items()}
        # Another version of iptables may spell the same rules in another way: what it showed after it had
        # accepted ours is then what is compared with.
        self._shown: dict[str, Ruleset] = {}

    def with_ports(self, ports: Sequence[int]) -> Firewall:
        """The same for other ports; changes no rule."""
        return Firewall(ports, self.queue_number, self._environ)

    def render(self) -> dict[str, str]:
        """The rules as input of ``iptables-restore --noflush``, by family ("ipv4", "ipv6")."""
        return {family: _fill(name, self.ports, self.queue_number) for family, name in _TEMPLATES.items()}

    def families(self) -> tuple[str, ...]:
        """Families that need rules.

        Without IPv6 in the running kernel no IPv6 packet can leave, so no rule is needed; asked anew each
        time, because the module can be loaded later. A sysctl that disables IPv6 can be undone at any moment
        and does not count.
        """
        return (V4, V6) if ipv6_in_kernel() else (V4,)

    def install(self) -> None:
        """Put the rules in, or repair them. What is right is not touched, and each table changes at once.

        Rules of ours that another backend (iptables-nft, iptables-legacy) holds are removed afterwards, since
        every packet would be queued twice. Raises OperatorError.
        """
        backend, *others = backends(self._environ)
        for family in self.families():
            self._install(backend, family)
        for other in others:
            _remove(other, optional=True)

    def hold(self) -> None:
        """Put the rules in as fast as can be, into a namespace that has none of ours yet: packets are dropped until a
        daemon binds the queue. `install` checks and repairs later. Raises OperatorError.
        """
        backend = backends(self._environ)[0]
        rules = self.render()
        for family in self.families():
            backend.restore(family, rules[family])

    def remove(self) -> None:
        """Take out all that is ours, whichever backend holds it. Raises OperatorError."""
        backend, *others = backends(self._environ)
        _remove(backend)
        for other in others:
            _remove(other, optional=True)

    def start_check(self) -> Check:
        """Begin to look at the rules without blocking. Raises OperatorError when iptables is missing."""
        backend = backends(self._environ)[0]
        words = [word for family in self.families() for word in (family, backend.command(family, "save"))]
        return Check(self, ["/bin/sh", "-c", _SAVE_SCRIPT, "sh", *words])

    def events(self) -> Listener:
        """Events of every change that goes through nf_tables, iptables-nft included: a hint to check at once.

        iptables-legacy raises none, so the clock has to drive checks as well.
        """
        return Listener(NETLINK_NETFILTER, [_NFNLGRP_NFTABLES])

    def announces_changes(self) -> bool:
        """Whether `events` reports every change of the rules: with iptables-nft, by what its commands are links to."""
        save = backends(self._environ)[0].command(V4, "save")
        return "nft" in os.path.basename(os.path.realpath(save))

    def judge(self, saved: Mapping[str, str]) -> State:
        """The worst state among the families that need rules, from ``iptables-save`` texts by family."""
        states = [
            judge(Ruleset.parse(saved.get(family, "")), self._wanted[family], self._shown.get(family))
            for family in self.families()
        ]
        return max(states, key=lambda state: state.value)

    def _install(self, backend: Backend, family: str) -> None:
        # Somebody else may change the rules between our look and our change, which then fails as a whole.
        for attempt in range(_INSTALL_ATTEMPTS):
            wanted = self._wanted[family]
            text = change(Ruleset.parse(backend.save(family)), wanted)
            try:
                if text:
                    backend.restore(family, text)
            except OperatorError:
                if attempt == _INSTALL_ATTEMPTS - 1:
                    raise
                continue
            shown = Ruleset.parse(backend.save(family))
            if judge(shown, wanted) is State.PRESENT:
                return
            if shown.same_shape(wanted):
                self._shown[family] = shown.ours()
                return
        raise OperatorError(
            f"{family} rules are not in place after {backend.command(family, 'restore')} accepted them: "
            "see whether another program rewrites the tables raw and mangle, and stop it"
        )


def _remove(backend: Backend, optional: bool = False) -> None:
    """Take our rules out of one backend; if `optional`, one that cannot even be read holds none."""
    for family in (V4, V6):
        if not backend.has(family) or (family == V6 and not ipv6_in_kernel()):
            continue
        for attempt in range(_INSTALL_ATTEMPTS):
            try:
                saved = backend.save_existing(family)
            except OperatorError:
                if not optional:
                    raise
                break
            text = change(Ruleset.parse(saved), Ruleset())
            try:
                if text:
                    backend.restore(family, text)
                break
            except OperatorError:
                if attempt == _INSTALL_ATTEMPTS - 1:
                    raise


def _fill(name: str, ports: Sequence[int], queue_number: int) -> str:
    groups = [ports[at : at + MULTIPORT_MAX] for at in range(0, len(ports), MULTIPORT_MAX)]
    lines = []
    for line in _template(name).splitlines(keepends=True):
        if line.startswith("#"):
            continue
        template = Template(line)
        repeats = groups if "ports" in template.get_identifiers() else [ports]
        lines += [template.substitute(queue=queue_number, ports=",".join(map(str, group))) for group in repeats]
    return "".join(lines)


def _template(name: str) -> str:
    installed = importlib.resources.files("mcencrypt") / "iptables" / name
    if installed.is_file():
        return installed.read_text()
    return (Path(__file__).parents[3] / "iptables" / name).read_text()


def _by_family(text: str) -> dict[str, str]:
    return {family: body for family, _, body in (part.partition("\n") for part in text.split(_FAMILY_MARK)[1:])}
