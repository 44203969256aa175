"""The iptables rules that hand P2P packets to the daemon: put in atomically, watched, taken out again.

Rules live in chains of our own (``MCENCRYPT-...``) in the tables raw and mangle of both families. The text
comes from the templates ``iptables/rules.v4`` and ``rules.v6``; it is written in iptables-save's own order
and spelling, so that what is installed can be compared with it.
"""

from __future__ import annotations

import importlib.resources
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from string import Template

from mcencrypt.errors import OperatorError
from mcencrypt.kernel import nftables
from mcencrypt.kernel.commands import Command, Steps, perform
from mcencrypt.kernel.fence import DEFAULT_MARK
from mcencrypt.kernel.iptables import SECONDS, V4, V6, Backend, backends, decode, ipv6_in_kernel, kind_shown
from mcencrypt.kernel.netlink import NETLINK_NETFILTER, Listener
from mcencrypt.kernel.nftview import View
from mcencrypt.kernel.quoting import matches
from mcencrypt.kernel.ruleset import Ruleset, State, Table, change, change_shape, judge_shape, judge_table, worst

#: Ports that one multiport match takes (XT_MULTI_PORTS in xt_multiport.h).
MULTIPORT_MAX = 15

#: Seconds that a look at the rules may take.
CHECK_SECONDS = 4.0
_INSTALL_ATTEMPTS = 5
_NFNLGRP_NFTABLES = 7
_TABLES = ("raw", "mangle")
_TEMPLATES = {V4: "rules.v4", V6: "rules.v6"}
# $1: a word that no rule holds, in front of the name of each family; then pairs of a name and its iptables-save.
_SAVE_SCRIPT = """
mark=$1
shift
while [ $# -gt 0 ]; do
    echo "$mark$1"
    "$2" -t raw || exit
    "$2" -t mangle || exit
    shift 2
done
"""


class Firewall:
    """The rules for a set of ports and one queue.

    In `environ`, MCENCRYPT_IPTABLES names the iptables command to use (default ``iptables`` from PATH).
    """

    def __init__(
        self,
        ports: Sequence[int],
        queue_number: int,
        environ: Mapping[str, str] = os.environ,
        mark: int | None = DEFAULT_MARK,
        selective: bool = True,
    ) -> None:
        """`mark`: the bit that opens the fence (`kernel.fence`); None where there is none.

        `selective`: of ICMP errors take only those that quote the ports; given up where that is impossible.
        """
        self.ports = tuple(ports)
        self.queue_number = queue_number
        self.mark = mark
        self._environ = environ
        self._select(selective)
        # Another version of iptables may spell the same rules in another way: what it showed after it had
        # accepted ours is then what is compared with.
        self._shown: dict[str, Ruleset] = {}
        #: What was so when the rules were last seen to be in place, None if they were not.
        self._present: tuple[object, ...] | None = None

    def with_ports(self, ports: Sequence[int]) -> Firewall:
        """The same for other ports; changes no rule."""
        return Firewall(ports, self.queue_number, self._environ, self.mark, self.selective)

    def without_mark(self) -> Firewall:
        """The same where there is no fence; changes no rule."""
        return Firewall(self.ports, self.queue_number, self._environ, None, self.selective)

    def render(self) -> dict[str, str]:
        """The rules as input of ``iptables-restore --noflush``, by family ("ipv4", "ipv6")."""
        return {family: self._fill(family, name) for family, name in _TEMPLATES.items()}

    def families(self) -> tuple[str, ...]:
        """Families that need rules.

        Without IPv6 in the running kernel no IPv6 packet can leave, so no rule is needed; asked anew each
        time, because the module can be loaded later. A sysctl that disables IPv6 can be undone at any moment
        and does not count.
        """
        return (V4, V6) if ipv6_in_kernel() else (V4,)

    def installing(self) -> Steps[None]:
        """Put the rules in, or repair them. What is right is not touched, and each table changes at once.

        Rules of ours that another backend (iptables-nft, iptables-legacy) holds are removed afterwards, since
        every packet would be queued twice. Raises OperatorError.
        """
        backend, *others = backends(self._environ)
        kind = backend.kind
        for family in self.families():
            shown = yield from self._with_or_without_u32(partial(self._install, backend, family))
            kind = kind or kind_shown(shown)
        for other in others:
            # of the same kind they are the same rules by another name, a script's for instance
            if other.kind not in (kind, ""):
                yield from _remove(other)

    def removing(self) -> Steps[None]:
        """Take out all that is ours, whichever backend holds it. Raises OperatorError; then something may be left."""
        for backend in backends(self._environ):
            yield from _remove(backend)

    def checking(self) -> Steps[State]:
        """Look at the rules. Raises OperatorError if they cannot be read.

        Where they are in nf_tables, and nothing there has changed since they were seen to be in place, nothing is run.
        """
        backend = backends(self._environ)[0]
        # asked first: what changes during the look is looked at the next time
        generation = nftables.generation() if backend.kind == "nft" else None
        families = self.families()
        now = backend, families, generation
        if generation is not None and self._present == now:
            return State.PRESENT
        self._present = None
        state = yield from self._look(backend, families)
        if state is State.PRESENT:
            self._present = now
        return state

    def _look(self, backend: Backend, families: tuple[str, ...]) -> Steps[State]:
        words = [word for family in families for word in (family, backend.command(family, "save"))]
        mark = f"# {os.urandom(16).hex()} "
        name = os.path.basename(words[1])
        words = ["/bin/sh", "-c", _SAVE_SCRIPT, "sh", mark, *words]
        done = yield Command(tuple(words), environ=backend.environ, seconds=CHECK_SECONDS, name=name)
        if done.status:
            said = done.errors.decode(errors="replace").strip().replace("\n", "; ")
            raise OperatorError(f"the rules cannot be read: {said or f'exit status {done.status}'}")
        parts = (part.partition("\n") for part in decode(done.out).split(mark)[1:])
        texts = {family: text for family, _, text in parts}
        return worst(self._judge(backend, family, Ruleset.parse(texts.get(family, ""))) for family in families)

    def install(self) -> None:
        """`installing`, and wait for it. Raises OperatorError."""
        perform(self.installing(), SECONDS)

    def remove(self) -> None:
        """`removing`, and wait for it. Raises OperatorError."""
        perform(self.removing(), SECONDS)

    def hold(self) -> None:
        """Put the rules in as fast as can be, into a namespace that has none of ours yet: packets are dropped until a
        daemon binds the queue. `install` checks and repairs later. Raises OperatorError.
        """
        backend = backends(self._environ)[0]
        for family in self.families():
            perform(self._with_or_without_u32(partial(self._hold, backend, family)), SECONDS)

    def events(self) -> Listener:
        """Events of every change that goes through nf_tables, iptables-nft included: a hint to check at once.

        iptables-legacy raises none, so the clock has to drive checks as well. Raises OperatorError where the kernel
        has no netfilter at all.
        """
        try:
            return Listener(NETLINK_NETFILTER, [_NFNLGRP_NFTABLES])
        except OSError as error:
            raise OperatorError(
                f"the kernel does not tell of netfilter ({error.strerror}): load its modules on the host (modprobe "
                "nfnetlink_queue; after an update of the kernel reboot first), or use a kernel with "
                "CONFIG_NETFILTER_NETLINK_QUEUE"
            ) from None

    def announces_changes(self) -> bool:
        """Whether `events` reports every change of the rules: with iptables-nft."""
        return backends(self._environ)[0].kind == "nft"

    def _with_or_without_u32(self, attempt: Callable[[], Steps[str]]) -> Steps[str]:
        """Try again without u32 if that may be what is missing; if it was not, keep to it. Raises OperatorError."""
        try:
            return (yield from attempt())
        except OperatorError:
            if not self.selective:
                raise
            self._select(False)
            try:
                return (yield from attempt())
            except OperatorError:
                self._select(True)
                raise

    def _hold(self, backend: Backend, family: str) -> Steps[str]:
        return (yield from backend.restore(family, self.render()[family]))

    def _select(self, selective: bool) -> None:
        self.selective = selective
        self._wanted = {family: Ruleset.parse(text) for family, text in self.render().items()}

    def _fill(self, family: str, name: str) -> str:
        ports = self.ports
        groups = [",".join(map(str, ports[at : at + MULTIPORT_MAX])) for at in range(0, len(ports), MULTIPORT_MAX)]
        several = {"ports": groups, "quoting": matches(family, ports, self.selective)}
        values = {"queue": str(self.queue_number), "mark": f"{self.mark or 0:#x}"}
        lines = []
        for line in _template(name).splitlines(keepends=True):
            template = Template(line)
            names = template.get_identifiers()
            if line.startswith("#") or ("mark" in names and self.mark is None):
                continue
            repeated = next((name for name in names if name in several), "queue")
            lines += [template.substitute(values | {repeated: one}) for one in several.get(repeated, [values["queue"]])]
        return "".join(lines)

    def _judge(self, backend: Backend, family: str, saved: Ruleset) -> State:
        states = []
        for name, goal in self._shown.get(family, self._wanted[family]).tables.items():
            if name not in saved.unread:
                states.append(judge_table(saved.tables.get(name, Table()), goal))
                continue
            with _view(backend, family, saved, name) as view:
                states.append(judge_shape(view.read(name), goal))
        return worst(states)

    def _install(self, backend: Backend, family: str) -> Steps[str]:
        """Returns what its iptables-save shows then."""
        wanted = self._wanted[family]
        # Somebody else may change the rules between our look and our change, which then fails as a whole.
        for attempt in range(_INSTALL_ATTEMPTS):
            saved = Ruleset.parse((yield from backend.save(family, *wanted.tables)))
            unread = [name for name in wanted.tables if name in saved.unread]
            try:
                if text := change(saved, wanted):
                    yield from backend.restore(family, text)
                for name in unread:
                    with _view(backend, family, saved, name) as view:
                        text = change_shape(name, view.read(name), wanted.tables[name])
                        yield from backend.restore(family, text)
                        view.keep_first_jumps(name)
            except OperatorError:
                if attempt == _INSTALL_ATTEMPTS - 1:
                    raise
                continue
            text = yield from backend.save(family, *wanted.tables)
            shown = Ruleset.parse(text)
            if not unread and not shown.unread and shown.same_shape(wanted):
                self._shown[family] = shown.ours()
            if self._judge(backend, family, shown) is State.PRESENT:
                return text
        raise OperatorError(
            f"{family} rules are not in place after {backend.command(family, 'restore')} accepted them: "
            "see whether another program rewrites the tables raw and mangle, and stop it"
        )


def rules_left(environ: Mapping[str, str] = os.environ) -> Steps[bool]:
    """Whether any rule of ours is in place, in whichever backend. Raises OperatorError if that cannot be told."""
    for backend in backends(environ):
        for family in (V4, V6):
            if not _can_hold(backend, family):
                continue
            saved = Ruleset.parse((yield from backend.save(family)))
            found = any(saved.ours().tables)
            for name in _TABLES:
                if name in saved.unread:
                    with _view(backend, family, saved, name) as view:
                        found |= bool(view.read(name).own_chains())
            if found:
                return True
    return False


def _remove(backend: Backend) -> Steps[None]:
    """Take our rules out of one backend."""
    for family in (V4, V6):
        if not _can_hold(backend, family):
            continue
        for attempt in range(_INSTALL_ATTEMPTS):
            saved = Ruleset.parse((yield from backend.save(family)))
            try:
                if text := change(saved, Ruleset()):
                    yield from backend.restore(family, text)
                for name in _TABLES:
                    if name in saved.unread:
                        with _view(backend, family, saved, name) as view:
                            view.remove(name)
                break
            except OperatorError:
                if attempt == _INSTALL_ATTEMPTS - 1:
                    raise


def _can_hold(backend: Backend, family: str) -> bool:
    """Whether this backend may hold rules of ours; not so only where the kernel itself says that it has none."""
    if not backend.has(family) or (family == V6 and not ipv6_in_kernel()):
        return False
    kind = backend.kind
    return (kind != "legacy" and _nft_can_hold(family)) or (kind != "nft" and _legacy_can_hold(family))


def _nft_can_hold(family: str) -> bool:
    try:
        view = View(family)
        try:
            return any(view.has(name) for name in _TABLES)
        finally:
            view.close()
    except OSError as error:
        return error.errno not in nftables.NO_SUCH_THING


def _legacy_can_hold(family: str) -> bool:
    names = Path("/proc/thread-self/net", "ip_tables_names" if family == V4 else "ip6_tables_names")
    try:
        return bool(set(_TABLES).intersection(names.read_text().split()))
    except FileNotFoundError:
        return False  # the kernel has no ip_tables
    except OSError:
        return True


@contextmanager
def _view(backend: Backend, family: str, saved: Ruleset, table: str) -> Iterator[View]:
    """A table of `saved` that could not be read, as the kernel has it. Raises OperatorError."""
    command = backend.command(family, "save")
    if table not in saved.hidden:
        raise OperatorError(f"{command} does not show table {table} to its end: repair the iptables package")
    try:
        view = View(family)
        try:
            yield view
        finally:
            view.close()
    except OSError as error:
        raise OperatorError(
            f"{command} cannot show table {table}, which holds rules that it does not know, and the kernel does not "
            f"either: {error.strerror}: run as root"
        ) from None


def _template(name: str) -> str:
    installed = importlib.resources.files("mcencrypt") / "iptables" / name
    if installed.is_file():
        return installed.read_text()
    return (Path(__file__).parents[3] / "iptables" / name).read_text()
