"""Programs of ours that start as copies of a process which has imported them already.

Tests start a thousand daemons, commands and ends of connections, and most would import for longer than they run. A
nursery imports once, and becomes what is asked for by fork(2): with the arguments, environment, files, folder and
network namespace that it would have had, and a command line to be known by. Nothing but its imports is older than it.
Who wants what a user starts gets it without `use`, as the demo, the benchmarks and MCENCRYPT_FULL=1 do.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import mcencrypt
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.namespace import OWN, setns

#: What it can become, as `python -m` takes it.
MODULES = frozenset({"lab.apps", "lab.node", "lab.recorder", "lab.requests", "mcencrypt"})
#: What it imports beforehand: of packages all, but for what few need and all would have to carry.
_PACKAGES = ("mcencrypt.cli", "mcencrypt.control", "mcencrypt.daemon", "mcencrypt.doctor")
#: What those import only when they need it.
_LATER = ("cryptography.hazmat.primitives.asymmetric.x25519", "pyroute2", "tomlkit")
#: Beginnings of variables that decide how an interpreter starts, or what it imports: who wants others starts by itself.
_DECISIVE = ("PYTHON", "LC_", "LANG", "LD_", "TZ", "MALLOC_", "GLIBC_", "OPENSSL_", "MCENCRYPT_INTERPRETED")
_LONGEST = 1 << 17
#: Room for the command line of a copy, in bytes.
_ROOM = 2048


class Started(Protocol):
    """What is asked of a program that was started; as `subprocess.Popen` has it."""

    pid: int
    returncode: int | Any

    def poll(self) -> int | None: ...

    def wait(self, timeout: float | None = None) -> int: ...

    def send_signal(self, sig: int) -> None: ...


class Copy:
    """A program that a nursery has become."""

    def __init__(self, argv: Sequence[str], link: socket.socket) -> None:
        self._argv, self._link, self._lock = argv, link, threading.Lock()
        told = link.recv(8)
        if len(told) != 8:
            raise OperatorError(f"{' '.join(argv)}: the nursery did not start it")
        self.pid: int = struct.unpack("q", told)[0]
        #: Its exit code, minus the signal that ended it; None until `poll` or `wait` has seen its end.
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code if it has ended."""
        with self._lock:
            if self.returncode is None and select.select([self._link], [], [], 0)[0]:
                told = self._link.recv(8)
                if len(told) != 8:
                    raise OperatorError(f"{' '.join(self._argv)}: the nursery that it came from is gone")
                self.returncode = struct.unpack("q", told)[0]
                self._link.close()
            return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end, for so many seconds at most; returns the exit code. Raises subprocess.TimeoutExpired."""
        end = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            left = None if end is None else end - time.monotonic()
            if left is not None and left <= 0:
                raise subprocess.TimeoutExpired(list(self._argv), timeout or 0)
            with contextlib.suppress(OSError, ValueError):  # closed: another thread has seen the end
                select.select([self._link], [], [], left)
        return code

    def send_signal(self, sig: int) -> None:
        """Send it a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, sig)


class Nursery:
    """The process that programs are copied from, started when the first is asked for."""

    def __init__(self) -> None:
        self._decisive = _decisive(os.environ | importable())
        self._control, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with other:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "lab.nursery", str(other.fileno()), "-" * _ROOM],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[other.fileno()],
                cwd="/",
                env=os.environ | importable(),
                start_new_session=True,  # ctrl-c ends the tests, and they what they have started
            )

    def can(self, argv: Sequence[str], env: Mapping[str, str]) -> bool:
        """Whether it can become that."""
        ours = list(argv[:2]) == [sys.executable, "-m"] and len(argv) > 2 and argv[2] in MODULES
        return ours and _decisive(env) == self._decisive

    def start(
        self,
        argv: Sequence[str],
        env: Mapping[str, str],
        files: tuple[int, int, int],
        cwd: str | os.PathLike[str] | None = None,
        session: bool = False,
    ) -> Copy:
        """Become that program, in the calling thread's network namespace; see `start` below."""
        asked = {
            "argv": list(argv),
            "env": dict(env),
            "cwd": os.fspath(cwd or os.getcwd()),
            "session": session,
        }
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there, open(OWN) as namespace:
            message = json.dumps(asked).encode()
            socket.send_fds(self._control, [message], [there.fileno(), *files, namespace.fileno()])
        return Copy(argv, here)

    def close(self) -> None:
        """End it; what it became goes on."""
        self._control.close()
        self._process.wait()


_wanted = False
_nursery: Nursery | None = None
_lock = threading.Lock()


def use() -> None:
    """From now on programs of ours that hosts run are copies; of root's, who alone may enter a namespace."""
    global _wanted
    _wanted = not os.geteuid()


def start(
    argv: Sequence[str],
    files: tuple[int, int, int],
    *,
    env: Mapping[str, str] | None = None,
    cwd: str | os.PathLike[str] | None = None,
    session: bool = False,
) -> Started:
    """Start a program, as a copy if that is wanted and can be.

    `files`: descriptors of its stdin, stdout and stderr. `session`: it leads a session of its own. Raises
    FileNotFoundError if it is not installed.
    """
    environment = os.environ if env is None else env
    with _lock:
        global _nursery
        if _wanted and _nursery is None:
            _nursery = Nursery()
            atexit.register(_nursery.close)
    if _nursery and _nursery.can(argv, environment):
        return _nursery.start(argv, environment, files, cwd, session)
    stdin, stdout, stderr = files
    return subprocess.Popen(
        argv, stdin=stdin, stdout=stdout, stderr=stderr, env=env, cwd=cwd, start_new_session=session
    )


def _decisive(env: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in env.items() if value and name.startswith(_DECISIVE)}


def importable() -> dict[str, str]:
    """PYTHONPATH with which a child imports the same lab and mcencrypt as we did, installed or not."""
    here = (str(folder.resolve().parent) for folder in (Path(__file__).parent, Path(mcencrypt.__path__[0])))
    return {"PYTHONPATH": os.pathsep.join(filter(None, (*here, os.environ.get("PYTHONPATH"))))}


# ------------------------------------------------------------ the process itself


def _serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork what is asked for. Returns twice: in each copy, with what it is to be; and with None when nobody asks."""
    running: dict[int, tuple[int, socket.socket]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(control, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fileobj is control:
                    message, handed, _, _ = socket.recv_fds(control, _LONGEST, 5)
                    if not message:
                        return None
                    link, *files = handed
                    if not (pid := os.fork()):
                        return {**json.loads(message), "files": files}
                    for file in files:
                        os.close(file)
                    pidfd = os.pidfd_open(pid)
                    running[pidfd] = pid, socket.socket(fileno=link)
                    selector.register(pidfd, selectors.EVENT_READ)
                    _tell(running[pidfd][1], pid)
                else:
                    pidfd = key.fd
                    pid, caller = running.pop(pidfd)
                    selector.unregister(pidfd)
                    os.close(pidfd)
                    _tell(caller, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
                    caller.close()


def _tell(caller: socket.socket, number: int) -> None:
    with contextlib.suppress(OSError):  # one that is gone
        caller.send(struct.pack("q", number))


def _become(asked: dict[str, Any]) -> None:
    """Be that program from now on, to its end."""
    *files, namespace = asked["files"]
    if asked["session"]:
        os.setsid()
    if error := setns(namespace):
        raise OSError(error, os.strerror(error))
    for number, file in enumerate(files):
        os.dup2(file, number)
    os.closerange(3, 1 << 16)
    os.chdir(asked["cwd"])
    os.environ.clear()
    os.environ.update(asked["env"])
    argv = asked["argv"]
    sys.orig_argv[:] = argv
    _call_itself(argv)
    module = argv[2]
    sys.path[0] = asked["cwd"]
    sys.argv[:] = argv[2:]
    sys.modules.pop(module, None)  # it runs as __main__
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def _call_itself(argv: Sequence[str]) -> None:
    """Have /proc/PID/cmdline say that, where the nursery's own words and what they were filled up with are."""
    # proc(5): arg_start and arg_end are fields 48 and 49, of which two are before the bracket
    begin, end = map(int, Path("/proc/self/stat").read_text().rpartition(")")[2].split()[45:47])
    text = b"".join(word.encode(errors="surrogateescape") + b"\0" for word in argv)
    ctypes.memmove(begin, text[: end - begin - 1].ljust(end - begin, b"\0"), end - begin)


def main() -> None:
    """Import, and serve; in a copy, be what was asked for."""
    for name in (*sorted(MODULES - {"mcencrypt"}), *_LATER):
        importlib.import_module(name)
    for name in _PACKAGES:
        package = importlib.import_module(name)
        for found in pkgutil.iter_modules(package.__path__, f"{name}."):
            importlib.import_module(found.name)
    gc.collect()
    gc.freeze()  # else each copy's first collection would write to all of it
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    if asked is not None:
        _become(asked)


if __name__ == "__main__":
    main()
