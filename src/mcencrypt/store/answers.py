"""Which key answered at which address: a file in the state directory, a line for each address and port.

    192.0.2.7:7331 hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo= 2026-03-01T10:00:00Z 2026-03-09T10:00:00Z

The key, since when it is known and when it last answered (to the day); then, if another key answered there later, that
one and when. The daemon keeps it; `mcencrypt peers forget` takes lines out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from mcencrypt.core.answers import CAPACITY, Answered
from mcencrypt.errors import OperatorError
from mcencrypt.store.endpoints import endpoint_text, parse_endpoint
from mcencrypt.store.files import cannot, replace_file
from mcencrypt.store.peers import parse_key

NAME: Final = "known-peers"
_LIMIT: Final = 1 << 20


def read_answers(state_dir: Path) -> dict[bytes, Answered]:
    """What is remembered, by packed address + port; nothing if there is no file. Raises OperatorError."""
    file = state_dir / NAME
    try:
        with file.open("rb") as stream:
            content = stream.read(_LIMIT + 1)
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise cannot(file, "be read", error) from None
    if len(content) > _LIMIT:
        raise OperatorError(f"{file}: is larger than {_LIMIT} bytes, which no daemon writes: remove it")
    known = {}
    for number, line in enumerate(content.decode("ascii", "replace").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            endpoint, answered = _read_line(line.split())
        except (ValueError, OperatorError) as problem:
            raise OperatorError(
                f"{file}: line {number}: {problem}: correct it, or take it out (then the next key there is believed)"
            ) from None
        known[endpoint] = answered
    if len(known) > CAPACITY:
        raise OperatorError(f"{file}: {len(known)} addresses are more than {CAPACITY}: take some out")
    return known


def answers_text(known: Mapping[bytes, Answered]) -> bytes:
    """The file's content."""
    return "".join(f"{' '.join(_words(endpoint, one))}\n" for endpoint, one in known.items()).encode()


def write_answers(state_dir: Path, known: Mapping[bytes, Answered]) -> None:
    """Write the file; on disk when this returns. Raises OperatorError."""
    replace_file(state_dir / NAME, answers_text(known))


def instant(unix_s: int) -> str:
    """Seconds since 1970 for people."""
    return datetime.fromtimestamp(unix_s, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _read_line(words: list[str]) -> tuple[bytes, Answered]:
    if len(words) not in (4, 6):
        raise ValueError("is not an address, a key and two dates")
    endpoint = parse_endpoint(words[0])
    if len(endpoint) not in (6, 18):
        raise ValueError(f"{words[0]!r} has no port")
    others = (parse_key(words[4]), _seconds(words[5])) if len(words) == 6 else ()
    return endpoint, Answered(parse_key(words[1]), _seconds(words[2]), _seconds(words[3]), *others)


def _seconds(text: str) -> int:
    return int(datetime.strptime(text, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC).timestamp())


def _words(endpoint: bytes, one: Answered) -> Iterable[str]:
    yield endpoint_text(endpoint)
    yield base64.b64encode(one.identity).decode()
    yield instant(one.since)
    yield instant(one.last)
    if one.other:
        yield base64.b64encode(one.other).decode()
        yield instant(one.other_at)
