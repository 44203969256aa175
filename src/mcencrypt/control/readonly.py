"""A second socket, for a group of the system: it shows, and changes nothing."""

from __future__ import annotations

import grp
import os
import stat
from pathlib import Path
from typing import Any, Final

from mcencrypt.control.client import READ_ONLY, STATUS_SOCKET
from mcencrypt.control.runlock import RunLock
from mcencrypt.control.server import Arguments, ControlServer, Handler, Later, Result
from mcencrypt.errors import OperatorError

#: Its group may go through the folder, and not look into it.
_PASSABLE: Final = 0o710


def status_server(run_dir: Path, handler: Handler, lock: RunLock, group: str) -> ControlServer:
    """A server of `READ_ONLY` commands, at ``run_dir/status.sock``, for members of the group and for root.

    The folder is opened for the group to pass through, not to look into. Raises OperatorError: there is no such group,
    or folder and socket cannot be given to it.
    """
    try:
        number = grp.getgrnam(group).gr_gid
    except KeyError:
        raise OperatorError(f"status_group: there is no group {group!r} here: groupadd --system {group}") from None

    def shown(command: str, arguments: Arguments) -> Result | Later[Any]:
        if command not in READ_ONLY:
            raise OperatorError(f"this socket only shows ({', '.join(READ_ONLY)}): run `mcencrypt {command}` as root")
        return handler(command, {})

    try:
        # systemd's unit has it so already (Group=), and may not be able to change it
        status = run_dir.stat()
        if status.st_gid != number:
            os.chown(run_dir, -1, number)
        if stat.S_IMODE(status.st_mode) != _PASSABLE:
            os.chmod(run_dir, _PASSABLE)
    except OSError as error:
        raise OperatorError(
            f"status_group: {run_dir} cannot be given to group {group}: {error.strerror}: let the daemon be in that "
            f"group (systemd: Group={group} and RuntimeDirectoryMode=0710; Docker: group_add), or have CAP_CHOWN"
        ) from None
    return ControlServer(run_dir / STATUS_SOCKET, shown, lock, number)
