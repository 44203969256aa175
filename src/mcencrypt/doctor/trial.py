"""A try of what the daemon needs, on the kernel itself, where no daemon runs to have tried it."""

from __future__ import annotations

from mcencrypt.doctor.case import Case
from mcencrypt.errors import OperatorError


def try_kernel(case: Case) -> str:
    """Bind the queue, change one packet on lo, put rules into a chain that nothing leads to; "" if all works.

    Takes well under a second and leaves nothing behind. Not to be called while a daemon runs.
    """
    from mcencrypt.kernel.commands import perform
    from mcencrypt.kernel.firewall import Firewall
    from mcencrypt.kernel.iptables import SECONDS, backends
    from mcencrypt.kernel.ruleset import Ruleset
    from mcencrypt.kernel.selftest import try_queue
    from mcencrypt.kernel.sockets import Sockets

    try:
        try_queue(case.queue_number, case.environ)
        backend = backends(case.environ)[0]
        firewall = Firewall(case.ports or (1,), case.queue_number, case.environ, case.config.fence_mark)
        for family, text in firewall.render().items():
            if family not in firewall.families():
                continue
            for name, table in Ruleset.parse(text).tables.items():
                rules = "".join(f"-A {_CHAIN} {rule.spec}\n" for rule in table.own_rules())
                try:
                    perform(backend.restore(family, f"*{name}\n:{_CHAIN} - [0:0]\n{rules}COMMIT\n"), SECONDS)
                finally:
                    # declaring it again flushes it, and makes it if it was not there
                    gone = f"*{name}\n:{_CHAIN} - [0:0]\n-X {_CHAIN}\nCOMMIT\n"
                    perform(backend.restore(family, gone), SECONDS)
        sockets = Sockets()
        try:
            if not sockets.can_destroy():
                return (
                    "it cannot destroy sockets (CONFIG_INET_DIAG_DESTROY): plaintext connections from before `on` "
                    "stay until multichaind is restarted"
                )
        finally:
            sockets.close()
    except OperatorError as error:
        return str(error)
    except OSError as error:
        return f"{error.strerror}: run this as root"
    return ""


_CHAIN = "MCENCRYPT-TRIAL"
