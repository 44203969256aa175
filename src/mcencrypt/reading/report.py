"""The report on a capture file: which connections are encrypted, byte by byte."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

from mcencrypt.errors import OperatorError
from mcencrypt.reading.capture import segments
from mcencrypt.reading.conversations import Conversation, Conversations, RecordSink, Verdict


@dataclass(frozen=True)
class Report:
    """What a capture holds."""

    conversations: list[Conversation]
    #: Packets that may belong to a connection but cannot be read, by reason.
    oddities: dict[str, int]

    def of(self, *verdicts: Verdict) -> list[Conversation]:
        """The connections with one of these verdicts."""
        return [one for one in self.conversations if one.verdict in verdicts]

    @property
    def cut(self) -> int:
        """Packets of which the capture has not all bytes."""
        return sum(one.cut for one in self.conversations)

    @property
    def clean(self) -> bool:
        """Whether there was data, and every byte of it is handshake or record. The end of a record that the
        capture's end cut off is accounted for; nothing else is."""
        good = len(self.of(Verdict.ENCRYPTED))
        silent = len(self.of(Verdict.EMPTY))
        return good > 0 and good + silent == len(self.conversations) and not self.oddities


def decode(path: str, ports: Collection[int] | None = None, on_record: RecordSink | None = None) -> Report:
    """Read the capture file `path` (pcap or pcapng; ``-`` is standard input).

    Only connections with one of `ports` at either end are read; all with None. `on_record` is called for each record,
    in the order of the wire per direction. Raises OperatorError if the file cannot be read or is no capture.
    """
    oddities: Counter[str] = Counter()
    table = Conversations(ports, on_record)
    try:
        table.feed(segments(path, oddities))
    except OSError as error:
        raise OperatorError(f"cannot read {path}: {error.strerror or error}") from None
    table.close()
    return Report(table.all, dict(oddities))
