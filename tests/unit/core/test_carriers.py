"""A handshake message is good for one carrier: what was made for a stream opens no SYN, and the other way round.

Each is tried as it was recorded, and sealed anew with the network key and the kind that is expected there.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import ip_network

import pytest

from mcencrypt.core.handshake import NOISE_AT, Carrier, NetworkSecret
from mcencrypt.core.hello import DEADLINE
from mcencrypt.core.verdict import DROP
from tests.helpers.packets import ACK, RST, SYN
from tests.helpers.sides import ISN_A, ISN_B, NETWORK_KEY, A, B, Side, make
from tests.helpers.stripped import Path

SECRET = NetworkSecret(NETWORK_KEY)


def sealed(message: bytes, kind: int, anew: bool) -> bytes:
    """The message as it was, or with a right mac1 and another kind."""
    return SECRET.seal(kind, message[NOISE_AT:]) if anew else message


def refused_as(anew: bool) -> dict[str, int]:
    # what is sealed anew has the right form, and the transcript of the other carrier
    return {"forged-handshake" if anew else "malformed-handshake": 1}


def made_for_streams() -> tuple[bytes, bytes]:
    """Messages 1 and 2 of a handshake in a stream."""
    path = Path()
    message_1 = path.opened().payload
    path.b.ingress(path.from_a(message_1))
    ((_, answer),) = path.b.injected()
    return message_1, answer.payload


def made_for_syns(a: Side) -> tuple[bytes, bytes]:
    """Messages 1 and 2 of a handshake in a SYN that `a` begins."""
    b = Side(2)
    syn = a.dials()
    b.gets(syn)
    return syn.payload, b.sends(make(B, A, ISN_B, ISN_A + 1, SYN | ACK)).payload


@pytest.mark.parametrize("anew", [False, True])
@pytest.mark.parametrize("relayed", [False, True])
@pytest.mark.parametrize("mode", ["require", "prefer"])
def test_message_1_of_a_stream_in_a_syn(anew: bool, relayed: bool, mode: str) -> None:
    """No answer, nothing for our socket, and no plaintext where that is allowed."""
    message = sealed(made_for_streams()[0], Carrier.SYN.message_1, anew)
    b = Side(3, relayed=(ip_network("10.0.0.1/32"),) if relayed else (), mode=mode)
    assert b.ingress(make(A, B, 77, 0, SYN, message)) is DROP
    assert b.refused == refused_as(anew) and b.injected() == [] and b.states() == []


@pytest.mark.parametrize("anew", [False, True])
def test_message_1_of_a_syn_in_a_stream(anew: bool) -> None:
    path = Path()
    message = sealed(path.a.dials().payload, Carrier.STREAM.message_1, anew)
    path.opened()
    assert path.b.ingress(path.from_a(message)) is DROP
    assert path.b.refused == refused_as(anew) and path.b.states() == []
    assert {toward for toward, packet in path.b.injected() if packet.flags & RST} == {"network", "socket"}


@pytest.mark.parametrize("anew", [False, True])
def test_message_2_of_a_stream_in_a_syn_ack(anew: bool) -> None:
    message = sealed(made_for_streams()[1], Carrier.SYN.message_2, anew)
    a = Side(1)
    syn = a.dials()
    a.ingress(make(B, A, ISN_B, ISN_A + 1 + len(syn.payload), SYN | ACK, message))
    assert a.refused == refused_as(anew)
    assert not [one for one in a.states() if one.value == "encrypted"]


@pytest.mark.parametrize("anew", [False, True])
def test_message_2_of_a_syn_in_a_stream(anew: bool) -> None:
    """What is malformed ends it at once; what anybody can have made is not acknowledged, and time will tell."""
    path = Path()
    other = made_for_syns(Side(1))[1]
    path.opened()
    answer = path.from_b(sealed(other, Carrier.STREAM.message_2, anew), acked=138)
    assert path.a.ingress(replace(answer, ack=ISN_A + 1 + 138)) is DROP
    assert path.a.refused == refused_as(anew)
    if anew:
        assert path.a.injected() == []
        path.at(DEADLINE)
        path.a.engine.streams.tick(DEADLINE)
    assert {toward for toward, packet in path.a.injected() if packet.flags & RST} == {"network", "socket"}
