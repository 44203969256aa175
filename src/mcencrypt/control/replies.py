"""What the daemon answers on its control socket, command by command.

A reply is JSON, so its types are TypedDicts: what the daemon makes and what commands, doctor and the lab read is the
same dictionary. On the wire it stands in ``{"ok": true, "replies": VERSION, "result": {...}}`` (`client.VERSION`); a
command that failed is answered by ``{"ok": false, "error": "one line"}``.

`mcencrypt status --json` prints `Status` as it is; docs/status.schema.json describes it for other programs, and is made
from this file by tools/schema.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Final, Literal, NotRequired, TypedDict

from mcencrypt.control.answered import Answered as Answered
from mcencrypt.control.answered import OwnAddress as OwnAddress
from mcencrypt.control.answered import PeersForgotten as PeersForgotten
from mcencrypt.control.answered import Ping as Ping
from mcencrypt.core.handshake import CarrierWord
from mcencrypt.core.policy import Mode
from mcencrypt.core.probe import ProbeOutcome
from mcencrypt.core.reasons import Reason
from mcencrypt.core.status import State
from mcencrypt.interpreted import Build

#: Who decided the mode: `mcencrypt mode`, or the configuration.
ModeSource = Literal["command", "configuration"]
#: Who is trusted; as `store.values.Trust`.
Trust = Literal["network-key", "listed"]
#: What is known of the fence, see `Gate`; as `daemon.guard.FenceState`.
FenceState = Literal["off", "none", "unseen", "broken", "standing", "owned"]
#: A `State`, which JSON turns into its word.
StateWord = Annotated[str, State]


class PlaintextPeer(TypedDict):
    """A connection on the P2P ports that is not encrypted, whether or not the daemon has seen a packet of it."""

    #: The far end, ADDRESS:PORT or [ADDRESS]:PORT.
    peer: str
    #: Our end, likewise.
    local: str
    #: Whether `allow_plaintext` names it, so that it may stay under "require" as well.
    allowed: bool


class On(TypedDict):
    """`on`: encryption is on."""

    enabled: bool
    #: Connections in plaintext that were ended.
    ended: list[PlaintextPeer]


class Off(TypedDict):
    """`off`: new connections are plaintext."""

    enabled: bool
    #: Encrypted connections that are left to finish.
    draining: int
    #: The far ends of encrypted connections that were reset, ADDRESS:PORT or [ADDRESS]:PORT.
    reset: list[str]


class Counters(TypedDict):
    """What connections carried. Bytes are the applications' own; what is sent or arrives twice counts once."""

    #: Bytes that were sent, encrypted.
    bytes_out: int
    #: Bytes that arrived, encrypted.
    bytes_in: int
    #: Records that carried what was sent.
    records_out: int
    #: Records that carried what arrived.
    records_in: int
    #: Segments or batches that the local socket sent again.
    retransmissions: int
    #: Records that did not verify, and were dropped.
    auth_failures: int


class Connection(Counters):
    """One connection on the P2P ports. In plaintext, only the bytes are counted."""

    #: The far end, ADDRESS:PORT or [ADDRESS]:PORT.
    peer: str
    #: Our end, likewise.
    local: str
    #: Where it stands.
    state: StateWord
    #: The peer's public key in base64, once proven.
    identity: str | None
    #: What the peers file calls that key.
    name: str | None
    #: Id of the network key of the handshake, in hexadecimal; null while there is none.
    key_id: str | None
    #: What carries the handshake; null in plaintext.
    carrier: CarrierWord | None
    #: Seconds since it began.
    age: float


class Totals(Counters):
    """All connections that ever were encrypted since the daemon's start, those that are gone included."""

    #: How many they are.
    connections: int


class Queue(TypedDict):
    """The netfilter queue, and what was lost on its way; packets, but for the first two."""

    #: Number of the queue.
    number: int
    #: Packets that wait in the kernel now.
    waiting: int
    #: Dropped by the kernel because the queue was full.
    dropped_kernel: int
    #: Dropped by the kernel because the daemon's socket was full.
    dropped_user: int
    #: Times that the kernel told the daemon of such a loss.
    enobufs: int
    #: Dropped because of an error inside the daemon.
    bad_verdicts: int
    #: Packets of the daemon's own that the kernel took.
    injections: int
    #: Packets of the daemon's own that the kernel did not take.
    injections_failed: int


class Gate(TypedDict):
    """What keeps from passing what has not come through the daemon: iptables rules, and the fence behind them."""

    #: Whether the rules were in place when they were last looked at, seconds ago; false while none are wanted.
    rules_in_place: bool
    #: "off": none is wanted. "none": the kernel cannot have one. "broken": it was not in place at the last look.
    #: "unseen": the kernel did not say. "standing": in place. "owned": in place, and the kernel lets nobody but the
    #: daemon change it.
    fence: FenceState
    #: Why the kernel cannot have a fence; null unless `fence` is "none".
    no_fence: str | None
    #: Times that somebody else removed the fence.
    fence_lost: int
    #: Why rules or fence could not be looked at, or put right, at the last try; null if they could.
    trouble: str | None


class Uncovered(TypedDict):
    """A socket of MultiChain's, as far as can be told, on a port that no rule covers: in plaintext."""

    #: "listens": for peers. "dials", "connected": the peer's port.
    doing: Literal["listens", "dials", "connected"]
    #: The port that is missing among `ports`.
    port: int
    #: The peer, ADDRESS:PORT or [ADDRESS]:PORT; null for who listens.
    peer: str | None
    #: Whose socket it is, in words; null if that cannot be seen.
    owner: str | None
    #: Whether it is MultiChain's beyond reasonable doubt; only then `--check` fails.
    sure: bool


class PeersList(TypedDict):
    """A signed list of peers."""

    #: When it was signed, in seconds since 1970.
    serial: int
    #: From when on it counts no more, likewise.
    expires: int


class Key(TypedDict):
    """A network key: one that is accepted, or a retired one that still carries connections."""

    #: In hexadecimal.
    id: str
    #: Whether handshakes under it are accepted.
    accepted: bool
    #: Whether this node's own handshakes use it.
    offered: bool
    #: Whether network_key_file holds it.
    base: bool
    #: Connections that began under it.
    connections: int
    #: Peers that are known to have offered it last, within a day.
    peers: int
    #: Seconds since a handshake used it; null if none has since the daemon's start.
    last_used: float | None


class Keys(TypedDict):
    """The network keys of a node."""

    #: Those that are accepted first.
    keys: list[Key]
    #: Whether network_key_file holds a key that was retired here.
    base_key_retired: bool


class Status(Keys):
    """`status`: everything that the daemon shows of itself."""

    #: Whether new connections are encrypted.
    enabled: bool
    #: Whether it was switched off and encrypted connections are left to finish.
    draining: bool
    #: Encrypted or not at all ("require"), or in plaintext with peers that do not answer the handshake ("prefer").
    mode: Mode
    #: Whether `mcencrypt mode` set it, which is remembered, or the configuration did.
    mode_source: ModeSource
    #: Who may connect: whoever has the network key, or only the peers that are listed.
    trust: Trust
    #: The signed list of peers in force; null where the list is not signed.
    peers_list: PeersList | None
    #: Connections on the P2P ports that are not encrypted, whether or not the daemon has seen a packet of them.
    plaintext_peers: list[PlaintextPeer]
    #: The P2P ports.
    ports: list[int]
    #: Sockets of MultiChain's on other ports, as they were seen seconds ago, sure ones first.
    uncovered: list[Uncovered]
    #: Id of the network key that this node offers, in hexadecimal.
    key_id: str
    #: This node's public key, in base64.
    identity: str
    #: The network namespace that is served, as it was named; null if it is the daemon's own.
    netns: str | None
    #: Process id of the daemon.
    pid: int
    #: Of mcencrypt, as the daemon runs it.
    version: str
    #: Whether its packet path is compiled, or runs as Python (`MCENCRYPT_INTERPRETED=1`).
    build: Build
    #: Seconds since the daemon's start.
    uptime: float
    #: Those that it has seen: attempts, encrypted ones, and in plaintext.
    connections: list[Connection]
    #: What encrypted connections carried since the daemon's start.
    totals: Totals
    #: Addresses at which another key answered than the one that is remembered.
    changed_keys: list[Answered]
    #: Addresses at which this node has dialled itself.
    own_addresses: list[OwnAddress]
    #: Packets dropped and connections refused since the daemon's start, by reason; what never occurred is left out.
    refused: dict[Reason, int]
    #: Seconds since counters last grew, as far as they did: "refused.REASON", "rules_lost", "fence_lost",
    #: "bad_verdicts", "queue_dropped" (either way).
    grew: dict[str, float]
    #: The netfilter queue, and what was lost on its way.
    queue: Queue
    #: The rules and the fence.
    gate: Gate
    #: Times that somebody else removed our rules.
    rules_lost: int
    #: Seconds since the rules were last known to be in place; null if they are not.
    rules_seen: float | None


class ModeShown(TypedDict):
    """`mode`: the policy, and what it means for the connections that there are."""

    mode: Mode
    mode_source: ModeSource
    #: What the configuration says.
    configured: Mode
    #: Not there if no daemon was asked.
    plaintext_peers: NotRequired[list[PlaintextPeer]]
    #: The connections that were ended.
    ended: NotRequired[list[PlaintextPeer]]
    #: Nothing was changed: these would end, and that was not confirmed.
    would_end: NotRequired[list[PlaintextPeer]]


class EndedByReload(TypedDict):
    """Connections that another configuration does not allow."""

    #: In plaintext: ended.
    plaintext_ended: int
    #: Encrypted, on ports that were given up: reset.
    encrypted_reset: int
    #: Encrypted, with peers that are not listed any more: ended.
    distrusted_ended: int


class Reloaded(ModeShown, EndedByReload):
    """`reload`: the configuration was read again."""

    #: The configuration file; null if there is none.
    file: str | None
    #: Settings that changed.
    changed: list[str]
    #: Settings that changed in the file, and need a restart.
    needs_restart: list[str]
    #: What would keep the daemon from starting again, for a person.
    warnings: list[str]
    #: The P2P ports.
    ports: list[int]


class PeerConnection(TypedDict):
    """A connection with a peer whose identity is proven."""

    #: The far end, ADDRESS:PORT or [ADDRESS]:PORT.
    peer: str
    #: Our end, likewise.
    local: str
    state: StateWord
    carrier: CarrierWord
    #: When it began, in seconds since 1970.
    since: float
    #: Bytes of the application, as in `Counters`.
    bytes_out: int
    bytes_in: int


class Peer(TypedDict):
    """A peer that is connected, listed, or both."""

    #: Null if it is not listed.
    name: str | None
    #: Its public key, in base64.
    key: str
    #: None if it is listed and not connected.
    connections: list[PeerConnection]


class Peers(TypedDict):
    """`peers`: who is connected, proven, and which listed peers are not."""

    trust: Trust
    #: The peers file.
    file: str
    peers: list[Peer]
    #: Who answered where; empty if no daemon was asked.
    answered: list[Answered]


class PeersChanged(TypedDict):
    """`peers-changed`: the peers file was read again."""

    trust: Trust
    #: Peers that are listed now.
    peers: int
    #: Connections that were ended because their peer is not listed any more.
    ended: int


class Probed(TypedDict):
    """`probe`: what a handshake of the daemon's own found on a path (`core.probing.ProbeResult`)."""

    outcome: ProbeOutcome
    #: The same for a person.
    detail: str
    #: The peer's public key in base64; only if "encrypted".
    identity: str | None
    #: Id of the network key that was used, in hexadecimal.
    key_id: str
    #: Whether the peer offers that key when it dials; only if "encrypted".
    offered: bool | None
    #: Seconds between the last SYN and the answer.
    round_trip: float | None
    #: SYNs that were sent.
    attempts: int
    #: Id of the network key for which a handshake from that address was last refused.
    last_refused_key_id: str | None


class KeyAdded(TypedDict):
    """`key-add`: one more key is accepted."""

    #: In hexadecimal.
    id: str
    #: Whether it was not accepted before.
    new: bool


class KeyUsed(TypedDict):
    """`key-use`: another key is offered."""

    #: In hexadecimal, as the one that was offered before.
    id: str
    before: str
    #: Peers that answered with it.
    asked: int
    #: Peers that cannot be dialled from here with either key, for a person.
    unreachable: list[str]


class KeyRetired(TypedDict):
    """`key-retire`: a key is accepted no more."""

    #: In hexadecimal, as the one that is offered.
    id: str
    offered: str
    #: Peers that were asked.
    asked: int
    #: Whether network_key_file holds a retired key now.
    base: bool
    #: Connections that began under it, and stay.
    connections: int


#: Every command, and what it is answered by.
REPLIES: Final[Mapping[str, type]] = {
    "ping": Ping,
    "on": On,
    "off": Off,
    "status": Status,
    "mode": ModeShown,
    "reload": Reloaded,
    "peers": Peers,
    "peers-changed": PeersChanged,
    "peers-forget": PeersForgotten,
    "probe": Probed,
    "key-add": KeyAdded,
    "key-use": KeyUsed,
    "key-retire": KeyRetired,
}
