"""Doctor: what a peer's answers mean, on recorded ones."""

from __future__ import annotations

from ipaddress import ip_network
from typing import Any

import pytest
from click.testing import CliRunner

from mcencrypt.cli import cli
from mcencrypt.control.replies import Probed
from mcencrypt.doctor.case import Case
from mcencrypt.doctor.checks import examine_peer
from mcencrypt.doctor.finding import Finding, Severity
from mcencrypt.doctor.peer import parse_peer
from mcencrypt.errors import OperatorError
from tests.helpers import replies
from tests.helpers.recorded_machine import PORTS, Recorded, by_id, case, status

ADDRESS = "192.0.2.7"
OURS = replies.KEY_ID


@pytest.fixture
def machine() -> Recorded:
    made = Recorded()
    made.hosts = {ADDRESS: [ADDRESS], "node2.example": [ADDRESS, "2001:db8::7"]}
    return made


def ask(
    examined: Case, host: str = ADDRESS, port: int | None = None, stream: str = "silent", **changes: Any
) -> list[Finding]:
    """The findings about a peer that answers like that, and like `stream` to a handshake in the stream."""

    def daemon(address: str, asked: int, key_id: str | None = None, carrier: str = "syn", seconds: float = 0) -> Probed:
        assert (address, asked, key_id) == (ADDRESS, port or PORTS[0], None if carrier == "syn" else OURS)
        return replies.probed(**(changes if carrier == "syn" else {"outcome": stream}))

    [topic] = examine_peer(examined, host, port, daemon)
    return list(topic.findings)


def test_a_peer_that_encrypts(machine: Recorded) -> None:
    found = ask(case(machine, status()))
    assert [one.severity for one in found] == [Severity.OK] * 3
    text = by_id(found, "peer.encrypted").text
    assert "192.0.2.7:7331 answered the handshake in 4.2 ms" in text and OURS in text and "C" * 43 in text
    assert "12.3 ms" in by_id(found, "peer.mtu").text
    assert by_id(ask(case(machine, status()), offered=False), "peer.offers-other").severity is Severity.NOTE


@pytest.mark.parametrize(
    ("answer", "carries", "name", "words"),
    [
        ({"outcome": "no-mcencrypt"}, "passes", "peer.no-mcencrypt", "the path does carry data in SYNs"),
        ({"outcome": "no-mcencrypt"}, "", "peer.no-mcencrypt", "its log says not-a-handshake"),
        ({"outcome": "no-mcencrypt"}, "stripped", "peer.syn-data", "removes data from SYNs"),
        ({"outcome": "stripped"}, "passes", "peer.stripped", "SYN-ACKs"),
        ({"outcome": "not-authentic", "detail": "it lies"}, "passes", "peer.not-authentic", "it lies"),
        ({"outcome": "refused", "detail": "connection refused"}, "passes", "peer.refused", "connection refused"),
        ({"outcome": "silent", "last_refused_key_id": "ff" * 8}, "passes", "peer.other-key", "ff" * 8),
        ({"outcome": "silent"}, "stripped", "peer.syn-data", "removes data"),
        ({"outcome": "silent"}, "passes", "peer.silent", "the host answers otherwise, and the path carries data"),
        ({"outcome": "silent", "last_refused_key_id": OURS}, "", "peer.silent", "the host answers otherwise"),
    ],
)
def test_what_is_wrong_with_a_peer(
    machine: Recorded, answer: dict[str, Any], carries: str, name: str, words: str
) -> None:
    machine.carries = carries
    found = by_id(ask(case(machine, status()), **answer), name)
    assert found.severity is Severity.PROBLEM and words in f"{found.text} {found.advice}" and found.advice


def test_a_peer_that_lacks_the_key_we_offer(machine: Recorded) -> None:
    other = "00112233445566aa"
    keys = [replies.key(id=one, offered=one == OURS) for one in (OURS, other)]

    def daemon(address: str, port: int, key_id: str | None = None, carrier: str = "syn", seconds: float = 0) -> Probed:
        return replies.probed(key_id=key_id or OURS, outcome="encrypted" if key_id == other else "silent")

    [topic] = examine_peer(case(machine, status(keys=keys)), ADDRESS, None, daemon)
    found = by_id(list(topic.findings), "peer.lacks-offered-key")
    assert found.severity is Severity.PROBLEM and f"silent to key {OURS}" in found.text and other in found.text


@pytest.mark.parametrize(
    ("syn", "stream", "settings", "severity", "words"),
    [
        ("encrypted", "encrypted", {}, Severity.OK, "in SYNs and in the stream: nothing to set"),
        ("encrypted", "silent", {}, Severity.OK, "in SYNs: nothing to set"),
        ("no-mcencrypt", "encrypted", {}, Severity.OK, "in the stream only: nothing to set here"),
        ("stripped", "encrypted", {}, Severity.OK, "in the stream only: nothing to set here"),
        ("silent", "encrypted", {}, Severity.WARNING, f'set relayed = ["{ADDRESS}"] here'),
        ("silent", "encrypted", {"relayed": (ip_network("192.0.2.0/24"),)}, Severity.OK, "`relayed` names it"),
        (
            "no-mcencrypt", "encrypted", {"allow_plaintext": (ip_network("192.0.2.0/24"),)}, Severity.PROBLEM,
            f'plaintext set relayed = ["{ADDRESS}"] here',
        ),
        ("no-mcencrypt", "unanswered", {}, Severity.PROBLEM, "the relay's as seen from there"),
    ],
)  # fmt: skip
def test_what_carries_handshakes_and_what_to_set(
    machine: Recorded, syn: str, stream: str, settings: dict[str, Any], severity: Severity, words: str
) -> None:
    found = ask(case(machine, status(), **settings), stream=stream, outcome=syn)
    one = by_id(found, "peer.carriers")
    assert one.severity is severity and words in f"{one.text} {one.advice}"
    assert max(len(one.text), len(one.advice)) <= 80 - 11, "a line each"
    assert ("peer.encrypted" in {each.id for each in found}) == ("encrypted" in (syn, stream))


def test_a_path_that_is_not_asked_twice_says_nothing_of_carriers(machine: Recorded) -> None:
    def daemon(address: str, asked: int, key_id: str | None = None, carrier: str = "syn", seconds: float = 0) -> Probed:
        if carrier == "stream":
            raise OperatorError("too many probes are under way")
        return replies.probed()

    [topic] = examine_peer(case(machine, status()), ADDRESS, None, daemon)
    assert "peer.carriers" not in {one.id for one in topic.findings}


def test_a_host_that_is_down(machine: Recorded) -> None:
    machine.carries, machine.largest_ping = "", 0
    found = ask(case(machine, status()), outcome="silent")
    assert "nothing of that host answers" in by_id(found, "peer.silent").text
    assert "pings are not answered" in by_id(found, "peer.mtu").text


@pytest.mark.parametrize("how", ["prefer", "allow_plaintext"])
def test_a_peer_in_plaintext_where_that_is_allowed(machine: Recorded, how: str) -> None:
    running = status(mode="prefer" if how == "prefer" else "require")
    allowed = {"allow_plaintext": (ip_network("192.0.2.0/24"),)} if how == "allow_plaintext" else {}
    found = ask(case(machine, running, **allowed), outcome="no-mcencrypt")
    assert by_id(found, "peer.no-mcencrypt").severity is Severity.WARNING


def test_a_path_with_a_smaller_mtu(machine: Recorded) -> None:
    machine.largest_ping = 1400
    found = by_id(ask(case(machine, status())), "peer.mtu")
    size = int(found.advice.split("mtu ")[1].split(",")[0])
    assert found.severity is Severity.WARNING and 1392 <= size <= 1400


def test_existing_connections_with_it_are_shown(machine: Recorded) -> None:
    connections = [
        replies.connection(peer=f"{ADDRESS}:7331"),
        replies.connection(peer=f"{ADDRESS}:40001", state="plaintext", identity=None),
        replies.connection(peer="192.0.2.70:7331", identity=None),
    ]
    found = ask(case(machine, status(connections=connections)))
    assert "is encrypted, with CCC" in by_id(found, "peer.connection").text
    assert by_id(found, "peer.plaintext").severity is Severity.WARNING


def test_without_a_daemon_the_path_is_still_tried(machine: Recorded) -> None:
    machine.carries = "stripped"
    found = ask(case(machine, None))
    assert "mcencrypt on" in by_id(found, "peer.no-daemon").advice
    assert by_id(found, "peer.syn-data").severity is Severity.PROBLEM
    machine.carries = "passes"
    assert by_id(ask(case(machine, None)), "peer.syn-data").severity is Severity.OK


def test_what_the_daemon_does_not_ask(machine: Recorded) -> None:
    def daemon(address: str, port: int, key_id: str | None = None) -> Probed:
        raise OperatorError("port 9 is not one of the P2P ports here (7331): set it in ports")

    [topic] = examine_peer(case(machine, status()), ADDRESS, 9, daemon)
    found = by_id(list(topic.findings), "peer.not-asked")
    assert found.severity is Severity.PROBLEM and found.advice == "set it in ports"


def test_names_with_several_addresses_and_with_none(machine: Recorded) -> None:
    topics = examine_peer(case(machine, status()), "node2.example", 7331, lambda *_: replies.probed())
    assert [topic.name for topic in topics] == [
        "peer node2.example, 192.0.2.7:7331",
        "peer node2.example, [2001:db8::7]:7331",
    ]
    [topic] = examine_peer(case(machine, status()), "nowhere.example", None, lambda *_: replies.probed())
    assert topic.findings[0].id == "peer.unresolved"
    [topic] = examine_peer(case(machine, None, ports=()), ADDRESS, None, lambda *_: replies.probed())
    assert topic.findings[0].id == "peer.no-port"


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("node2.example", "node2.example", None),
        ("node2.example:7331", "node2.example", 7331),
        ("192.0.2.7:8571", "192.0.2.7", 8571),
        ("2001:db8::7", "2001:db8::7", None),
        ("[2001:db8::7]:7331", "2001:db8::7", 7331),
        ("[2001:db8::7]", "2001:db8::7", None),
        ("chain1@node2.example:7331", "node2.example", 7331),
        ("chain1@[2001:db8::7]:7331", "2001:db8::7", 7331),
    ],
)
def test_how_a_peer_is_named(text: str, host: str, port: int | None) -> None:
    assert parse_peer(text) == (host, port)


@pytest.mark.parametrize("text", ["a:b", "host:0", "host:70000", "1:2:3", ""])
def test_what_is_no_peer(text: str) -> None:
    result = CliRunner().invoke(cli, ["doctor", text])
    assert result.exit_code == 2 and result.stderr.startswith("mcencrypt: ")
