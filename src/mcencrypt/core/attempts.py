"""Attempts: connections whose handshake is under way, in SYN and SYN-ACK."""

from __future__ import annotations

from typing import Final

from .handshake import Answer, Dial, Session
from .options import SynOptions
from .packet import Buffer, Segment

#: Seconds that an attempt may take; a Linux SYN-ACK is given up after 63.
LIFETIME: Final = 75.0


class Dialling:
    """Our socket's SYN: sent with message 1, waiting for a SYN-ACK."""

    __slots__ = ("bare", "begun", "dial", "expires", "isn", "owner", "scale", "syns", "window")

    def __init__(self, dial: Dial, segment: Segment, options: SynOptions, owner: int | None, now: float) -> None:
        """`owner`: the user whose socket it is; None if the kernel knows of no such socket, or was not asked yet."""
        self.dial, self.isn, self.scale, self.window = dial, segment.seq, options.window_scale, segment.window
        self.owner = owner
        self.begun, self.expires = now, now + LIFETIME
        #: How many SYNs have left, and whether the last one was bare.
        self.syns, self.bare = 0, False


class Dials:
    """Our sockets' attempts.  Bounded, and shared: no user of this host can keep the others from dialling."""

    __slots__ = ("_of", "by_key", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        #: By connection key, ours first.
        self.by_key: dict[bytes, Dialling] = {}
        #: The keys of each user's, the oldest first.
        self._of: dict[int | None, dict[bytes, None]] = {}

    def make_room(self, owner: int | None) -> bool:
        """Room for one more attempt of that user's.

        Where there is none, the oldest attempt of the user who has most gives way to one who has less.  Sockets that
        the kernel does not know, mostly because they are gone, count as one user's and give way to each other.
        """
        if len(self.by_key) < self.limit:
            return True
        most = max(self._of, key=lambda one: len(self._of[one]))
        if len(self._of[most]) <= len(self._of.get(owner, ())) and (most, owner) != (None, None):
            return False
        self.forget(next(iter(self._of[most])))
        return True

    def add(self, key: bytes, attempt: Dialling) -> None:
        """An attempt, in the place of what there is for these addresses and ports."""
        self.forget(key)
        self.by_key[key] = attempt
        self._of.setdefault(attempt.owner, {})[key] = None

    def is_filling(self) -> bool:
        """Whether there may soon be no room: whose the attempts are has to be known by then."""
        return len(self.by_key) >= self.limit // 2

    def belongs(self, key: bytes, owner: int | None) -> None:
        """The user whose attempt this is has been found out."""
        attempt = self.by_key.get(key)
        if attempt is None or attempt.owner == owner:
            return
        self.forget(key)
        attempt.owner = owner
        self.add(key, attempt)

    def which_sent(self, hello: Buffer) -> bytes | None:
        """The key of the attempt whose message 1 this is."""
        return next((key for key, attempt in self.by_key.items() if attempt.dial.hello == hello), None)

    def forget(self, key: bytes) -> None:
        """It is over, if there was one."""
        attempt = self.by_key.pop(key, None)
        if attempt is not None:
            held = self._of[attempt.owner]
            del held[key]
            if not held:
                del self._of[attempt.owner]


class Answering:
    """A peer's SYN with a valid message 1: passed to our socket, whose SYN-ACKs carry message 2."""

    __slots__ = ("answer", "begun", "expires", "hello", "isn", "mss", "replies", "scale", "window")

    def __init__(self, answer: Answer, hello: bytes, segment: Segment, options: SynOptions, now: float) -> None:
        self.answer, self.hello, self.isn = answer, hello, segment.seq
        self.scale, self.window = options.window_scale, segment.window
        #: What our socket is told, in bytes; whoever passes the SYN on sets it.
        self.mss = options.mss
        #: By our initial sequence number: message 2, the session, our window scale and window.
        self.replies: dict[int, tuple[bytes, Session, int | None, int]] = {}
        self.begun, self.expires = now, now + LIFETIME
