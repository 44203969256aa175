"""Switching off while no daemon runs, after a crash for instance."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mcencrypt.errors import OperatorError

if TYPE_CHECKING:
    from mcencrypt.store.config import Config

_LOOPBACK = (b"\x7f", bytes(15) + b"\x01")


def switch_off(config: Config) -> None:
    """Remember that encryption is off, and take the rules out. The caller holds the lock of `config.run_dir`.

    Raises OperatorError without permission, or if old connections cannot be closed; then the rules stay and nothing
    leaks.
    """
    from mcencrypt.kernel.gate import Gate
    from mcencrypt.store.position import write_switch

    if config.netns:
        from mcencrypt.kernel.namespace import AbsentError, enter

        try:
            enter(config.netns)
        except AbsentError:
            # With the namespace its rules have gone.
            write_switch(config.state_dir, False)
            return
    ports = config.p2p_ports()
    gate = Gate(ports, config.queue_number, config.fence_mark)
    if gate.is_closed():
        _close_connections(ports)
        gate.open()
    write_switch(config.state_dir, False)


def _close_connections(ports: tuple[int, ...]) -> None:
    """Destroy what the dead daemon may have encrypted: without rules, its sockets would go on in plaintext."""
    from mcencrypt.core.addresses import Ends
    from mcencrypt.kernel.sockets import Sockets

    try:
        sockets = Sockets()
        try:
            connected = (Ends(*one[:4]) for one in sockets.connected(ports))
            for ends, found in sockets.find(ends for ends in connected if not ends.remote.startswith(_LOOPBACK)):
                if found is not None:
                    sockets.destroy_found(ends, found)
        finally:
            sockets.close()
    except OSError as error:
        raise OperatorError(f"cannot close the old connections: {error.strerror}: run this as root") from None
