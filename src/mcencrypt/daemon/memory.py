"""What is remembered of who answered where: shown, forgotten on request, and kept on disk beside the packets.

No packet waits for a disk: a child writes the file, a second after there was news, and one at a time.
"""

from __future__ import annotations

import logging
import os
import sys
from pathlib import Path
from typing import Final

from mcencrypt.control import replies
from mcencrypt.control.server import Arguments
from mcencrypt.core.answers import Answered
from mcencrypt.core.engine import Engine
from mcencrypt.daemon.interfaces import Timers
from mcencrypt.daemon.jobs import Jobs
from mcencrypt.daemon.names import identity
from mcencrypt.daemon.settings import Live
from mcencrypt.errors import OperatorError
from mcencrypt.kernel.commands import Command, Steps
from mcencrypt.logs import fields
from mcencrypt.store.answers import NAME, answers_text, instant, read_answers, write_answers
from mcencrypt.store.endpoints import endpoint_text, parse_endpoint

log = logging.getLogger(__name__)

#: Seconds between news and its way to the disk: what comes meanwhile goes along.
DELAY: Final = 1.0
#: Seconds after which one that failed is tried again.
AGAIN: Final = 60.0


class Memory:
    """One daemon's. `jobs` is its own: a disk that hangs holds up no rules."""

    def __init__(self, engine: Engine, live: Live, timers: Timers, jobs: Jobs, state_dir: Path) -> None:
        """Reads what an earlier daemon has left. Raises OperatorError."""
        self._answers, self._engine, self._live = engine.admission.identities.answers, engine, live
        self._timers, self._jobs, self._state_dir = timers, jobs, state_dir
        self._answers.take_over(read_answers(state_dir).items())
        self._answers.changed = self._changed
        #: Whether there is news that is not on disk, and whether a timer will take care of that.
        self._news = self._timed = False

    def describe(self) -> list[replies.Answered]:
        """All of it."""
        return [self._describe(endpoint, one) for endpoint, one in self._answers.known.items()]

    def changes(self) -> list[replies.Answered]:
        """Where another key answered than the one that is remembered."""
        return [self._describe(endpoint, one) for endpoint, one in self._answers.known.items() if one.other]

    def command_forget(self, arguments: Arguments) -> replies.PeersForgotten:
        """The control command ``peers-forget``: the next key that answers at `address` is believed.

        Raises OperatorError.
        """
        endpoint = parse_endpoint(str(arguments.get("address", "")))
        gone = [endpoint_text(one) for one in self._answers.forget(endpoint)]
        if not gone:
            raise OperatorError(f"nothing is remembered of {endpoint_text(endpoint)}: see `mcencrypt peers`")
        log.info("what answered at an address is forgotten", extra=fields(addresses=",".join(gone)))
        return {"forgotten": gone}

    def close(self) -> None:
        """Keep what is not kept yet."""
        self._jobs.close()
        if self._news:
            try:
                write_answers(self._state_dir, self._answers.known)
            except OperatorError as problem:
                log.error(str(problem))

    def _describe(self, endpoint: bytes, one: Answered) -> replies.Answered:
        pinned = self._engine.policy.pinned_at(endpoint)
        return {
            "address": endpoint_text(endpoint),
            "key": identity(one.identity),
            "name": self._live.name_of(one.identity),
            "since": instant(one.since),
            "last": instant(one.last),
            "other_key": identity(one.other) if one.other else None,
            "other_name": self._live.name_of(one.other),
            "other_at": instant(one.other_at) if one.other else None,
            "pinned": pinned is not None or self._engine.policy.pin,
        }

    def _changed(self) -> None:
        self._news = True
        self._later(DELAY)

    def _later(self, seconds: float) -> None:
        if not self._timed:
            self._timed = True
            self._timers.call_at(self._timers.now() + seconds, self._keep)

    def _keep(self) -> None:
        self._timed = False
        if self._news and not self._jobs.idle:
            self._later(DELAY)
        elif self._news:
            self._news = False
            self._jobs.run(self._written(answers_text(self._answers.known)), lambda nothing: None, self._failed)

    def _written(self, content: bytes) -> Steps[None]:
        words = (sys.executable, "-m", "mcencrypt.store.files", str(self._state_dir / NAME))
        output = yield Command(words, content, os.environ)
        if output.status:
            raise OperatorError(output.errors.decode(errors="replace").strip() or f"{words[-1]}: cannot be written")

    def _failed(self, problem: OperatorError) -> None:
        log.error("who answered where could not be kept", extra=fields(error=str(problem)))
        self._news = True
        self._later(AGAIN)
