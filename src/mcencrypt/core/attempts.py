"""Attempts: connections whose handshake is under way, in SYN and SYN-ACK."""

from __future__ import annotations

from typing import Final

from .handshake import Answer, Dial, Session
from .options import SynOptions
from .packet import Segment

#: Seconds that an attempt may take; a Linux SYN-ACK is given up after 63.
LIFETIME: Final = 75.0


class Dialling:
    """Our socket's SYN: sent with message 1, waiting for a SYN-ACK."""

    __slots__ = ("begun", "dial", "expires", "isn", "scale", "window")

    def __init__(self, dial: Dial, segment: Segment, options: SynOptions, now: float) -> None:
        self.dial, self.isn, self.scale, self.window = dial, segment.seq, options.window_scale, segment.window
        self.begun, self.expires = now, now + LIFETIME


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
