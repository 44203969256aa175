"""The daemon's end of the control socket; `client` says what is spoken on it."""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import stat
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Generic, Literal, Protocol, TypedDict, TypeVar

from mcencrypt.control.caller import Caller, caller
from mcencrypt.control.client import VERSION, check_length, peer_uid
from mcencrypt.control.runlock import RunLock
from mcencrypt.errors import OperatorError

#: Longest request, in bytes with its line feed.
MAX_LINE = 64 * 1024
#: Clients at one time; one more closes the one that connected first.
MAX_CLIENTS = 16
_CHUNK = 64 * 1024


#: What one command is answered by: one of `replies`.
Result = Mapping[str, object]
#: What a client sent besides the command's name; nothing in it has been checked.
Arguments = Mapping[str, Any]
R_contra = TypeVar("R_contra", bound=Result, contravariant=True)


class Done(TypedDict):
    """A command that was carried out."""

    ok: Literal[True]
    replies: int
    result: Result


class Failed(TypedDict):
    """One that was not; `error` is a line for the operator."""

    ok: Literal[False]
    error: str


Reply = Done | Failed


class Later(Generic[R_contra]):
    """What a handler returns whose result is not there yet; it then calls `result` or `error`, once."""

    def __init__(self) -> None:
        self.reply: Reply | None = None
        #: What wants the reply, once the handler has returned.
        self.send: Callable[[Reply], None] | None = None

    def result(self, result: R_contra) -> None:
        """The command is done."""
        self._finish(_done(result))

    def error(self, problem: OperatorError) -> None:
        """The command failed."""
        self._finish(_failed(str(problem)))

    def _finish(self, reply: Reply) -> None:
        assert self.reply is None, "answered twice"
        self.reply = reply
        if self.send is not None:
            self.send(reply)


Handler = Callable[[str, Arguments], Result | Later[Any]]
#: Told who asks for what, before it is done.
Audit = Callable[[Caller, str, Arguments], None]


def _done(result: Result) -> Done:
    return {"ok": True, "replies": VERSION, "result": result}


def _failed(error: str) -> Failed:
    return {"ok": False, "error": error}


log = logging.getLogger(__name__)


class Readers(Protocol):
    """What the daemon's event loop offers: `callback` is called while `fd` is readable (level-triggered)."""

    def add_reader(self, fd: int, callback: Callable[[], None]) -> None: ...

    def remove_reader(self, fd: int) -> None: ...


class _Client:
    """One connection: bytes not yet understood, bytes not yet sent."""

    def __init__(self, connection: socket.socket) -> None:
        self.socket = connection
        self.incoming = bytearray()
        self.outgoing = bytearray()
        self.ending = False
        self.waiting = False  # for a reply that comes later; what it asked after that has to wait as well


class ControlServer:
    """The daemon's end.

    It has an epoll of its own for the listener and the clients, and an epoll is readable when one of its
    members is ready: so one `add_reader` is all that the daemon's loop has to offer, for writing too.

    Creating it takes the lock of the run directory (unless the caller holds it already) and listens.
    """

    def __init__(
        self,
        path: Path,
        handler: Handler,
        lock: RunLock | None = None,
        group: int | None = None,
        audit: Audit | None = None,
    ) -> None:
        """`path`: the socket; its folder is made (0700) if missing, and holds the lock.

        `handler` is called with command and arguments and returns the result, or a `Later`. Its OperatorError becomes
        an error reply; any other exception is logged and becomes a reply that says so. `lock`: the run directory's lock
        if the caller took it earlier; it stays the caller's. `group`: the id of a group whose members may connect as
        well (`readonly`); otherwise only root and the own user may. `audit` is told of each request before it is done.

        Raises OperatorError: a daemon already runs there, or the socket cannot be made.
        """
        check_length(path)
        self.path = path
        self._handler, self._group, self._audit = handler, group, audit
        self._own_lock = RunLock.acquire(path.parent) if lock is None else None
        self._clients: dict[int, _Client] = {}
        self._loop: Readers | None = None
        self._listener: socket.socket | None = None
        self._epoll = select.epoll()
        try:
            self._listener = _listen(path, group)
        except OSError as error:
            self.close()
            raise OperatorError(
                f"cannot make the control socket {path}: {error.strerror}; choose another --run-dir"
            ) from None
        self._epoll.register(self._listener.fileno(), select.EPOLLIN)

    def fileno(self) -> int:
        """One descriptor that is readable whenever `ready` has something to do."""
        return self._epoll.fileno()

    def attach(self, loop: Readers) -> None:
        """Let `loop` drive the server until `close`."""
        loop.add_reader(self.fileno(), self.ready)
        self._loop = loop

    def ready(self) -> None:
        """Do what can be done without waiting. Never raises for anything that a client does."""
        assert self._listener is not None, "closed"
        for fd, mask in self._epoll.poll(0):
            if fd == self._listener.fileno():
                self._accept()
                continue
            client = self._clients.get(fd)
            if client is None:
                continue
            try:
                self._advance(client, mask)
            except OSError:
                self._drop(client)

    def close(self) -> None:
        """Stop listening, drop the clients, unlink the socket, give back the lock. May be called twice."""
        if self._loop is not None:
            self._loop.remove_reader(self.fileno())
            self._loop = None
        for client in list(self._clients.values()):
            self._drop(client)
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            self.path.unlink(missing_ok=True)
        self._epoll.close()
        if self._own_lock is not None:
            self._own_lock.release()
            self._own_lock = None

    def _accept(self) -> None:
        assert self._listener is not None
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:
            # Out of descriptors: the backlog stays readable, so make room, or this would spin.
            log.error("control: cannot accept a connection: %s", error.strerror)
            self._drop_oldest()
            return
        connection.setblocking(False)
        if len(self._clients) >= MAX_CLIENTS:
            self._drop_oldest()
        client = _Client(connection)
        self._clients[connection.fileno()] = client
        self._epoll.register(connection.fileno(), select.EPOLLIN)
        uid = peer_uid(connection)
        if self._group is None and uid not in (0, os.geteuid()):
            log.warning("control: refused a request by user id %d", uid)
            self._answer(client, _failed("only root or the daemon's own user may control it"))
            client.ending = True
            try:
                self._flush(client)
            except OSError:
                self._drop(client)

    def _advance(self, client: _Client, mask: int) -> None:
        if mask & (select.EPOLLERR | select.EPOLLHUP) and not mask & (select.EPOLLIN | select.EPOLLOUT):
            self._drop(client)
            return
        if mask & select.EPOLLIN and not client.outgoing and not client.ending:
            try:
                data = client.socket.recv(_CHUNK)
            except (BlockingIOError, InterruptedError):
                return
            client.incoming += data
            client.ending = not data
        self._flush(client)

    def _next_reply(self, client: _Client) -> bool:
        """Answer the next complete line; False if there is none."""
        end = client.incoming.find(b"\n")
        if end >= MAX_LINE or (end < 0 and len(client.incoming) >= MAX_LINE):
            self._answer(client, _failed(f"a request is at most {MAX_LINE} bytes"))
            client.incoming.clear()
            client.ending = True
            return True
        if end < 0:
            return False
        line = bytes(client.incoming[:end])
        del client.incoming[: end + 1]
        reply = self._call(line, client)
        if isinstance(reply, Later):
            if reply.reply is None:
                client.waiting = True
                reply.send = partial(self._late, client)
                return False
            reply = reply.reply
        self._answer(client, reply)
        return True

    def _late(self, client: _Client, reply: Reply) -> None:
        client.waiting = False
        if self._clients.get(client.socket.fileno()) is not client:
            return  # it did not wait
        self._answer(client, reply)
        try:
            self._flush(client)
        except OSError:
            self._drop(client)

    def _call(self, line: bytes, client: _Client) -> Reply | Later[Any]:
        try:
            request = json.loads(line)
            command, version = request.pop("command"), request.pop("replies", VERSION)
            if not isinstance(command, str) or not isinstance(version, int):
                raise TypeError
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return _failed('a request is one JSON object with a "command", on one line')
        if version != VERSION:
            return _failed(
                f"the command reads answers of version {version}, this daemon gives {VERSION}: restart the daemon, so "
                "that both are of one version"
            )
        try:
            if self._audit is not None:
                self._audit(caller(client.socket), command, request)
            result = self._handler(command, request)
            return result if isinstance(result, Later) else _done(result)
        except OperatorError as error:
            return _failed(str(error))
        except Exception:
            log.exception("control: command %s failed", json.dumps(command))
            return _failed("the daemon failed at this command; its log says why")

    def _answer(self, client: _Client, reply: Reply) -> None:
        client.outgoing += json.dumps(reply, separators=(",", ":")).encode() + b"\n"

    def _flush(self, client: _Client) -> None:
        """Send what the socket takes, answer what has come in, and wait for what is missing."""
        while client.outgoing or (not client.waiting and self._next_reply(client)):
            try:
                sent = client.socket.send(client.outgoing)
            except (BlockingIOError, InterruptedError):
                # A client that does not read its reply is not read from either: its memory stays bounded.
                self._epoll.modify(client.socket.fileno(), select.EPOLLOUT)
                return
            del client.outgoing[:sent]
        if client.waiting:
            # Not even the end of what it sends is of interest now; that it hung up is always reported.
            self._epoll.modify(client.socket.fileno(), 0)
            return
        if client.ending:
            self._drop(client)
            return
        self._epoll.modify(client.socket.fileno(), select.EPOLLIN)

    def _drop_oldest(self) -> None:
        if self._clients:
            self._drop(next(iter(self._clients.values())))

    def _drop(self, client: _Client) -> None:
        self._clients.pop(client.socket.fileno(), None)
        client.socket.close()


def _listen(path: Path, group: int | None) -> socket.socket:
    """A listening socket at `path`, 0600 from its first instant, then 0660 for `group`. The caller holds the run
    directory's lock, so whatever is there was left by a daemon that is dead."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        try:
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                path.unlink()
        except FileNotFoundError:
            pass
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        if group is not None:
            if path.stat().st_gid != group:
                os.chown(path, -1, group)
            os.chmod(path, 0o660)
        listener.setblocking(False)
        listener.listen(MAX_CLIENTS)
    except BaseException:
        listener.close()
        raise
    return listener
