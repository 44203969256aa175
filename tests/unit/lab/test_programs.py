"""The lab's programs: message framing, contents of streams, and the comparison of two ends."""

import copy
import hashlib
import socket
import threading

import pytest

from lab import messages, streams
from lab.namespace import wait_for

MAGIC = messages.MAGIC


def test_framing_is_that_of_recorded_traffic():
    # getaddr, as a MultiChain 2.3 node sent it
    recorded = bytes.fromhex("f7c0eef2676574616464720000000000000000005df6e0e2")
    assert messages.frame(MAGIC, "getaddr") == recorded
    assert messages.read_header(MAGIC, recorded) == messages.Header("getaddr", 0, bytes.fromhex("5df6e0e2"))


def test_sizes_are_those_of_recorded_traffic():
    version = messages.version(("10.0.0.1", 7331), ("fd00::1", 7331), 77, 5)
    assert len(messages.frame(MAGIC, "version", version)) == 139
    assert messages.agent(version) == "MultiChain:0.2.0.13"
    assert messages.nonce(version) == 77
    assert len(messages.frame(MAGIC, "verack", messages.parameters(MAGIC, "chain1"))) == 344
    assert len(messages.frame(MAGIC, "inv", messages.inventory([(2, bytes(32))]))) == 61


def test_inventories_survive():
    entries = [(1, bytes(range(32))), (2, bytes(32))]
    assert messages.read_inventory(messages.inventory(entries)) == entries
    with pytest.raises(messages.MessageError):
        messages.read_inventory(messages.inventory(entries)[:-1])


@pytest.mark.parametrize("place", range(24 + 8))
def test_no_changed_byte_is_taken_for_a_message(place):
    changed = bytearray(messages.frame(MAGIC, "ping", b"12345678"))
    changed[place] ^= 0x80
    with pytest.raises(messages.MessageError):
        header = messages.read_header(MAGIC, bytes(changed[:24]))
        if header.length != 8:
            raise messages.MessageError("the stream ends before the payload does")
        messages.check(header, bytes(changed[24:]))


@pytest.mark.parametrize("length", [0, 1, 16 * 1024, streams.CHUNK - 1, streams.CHUNK, streams.CHUNK + 1, 700_001])
def test_content_has_its_length_and_repeats_nowhere(length):
    data = b"".join(streams.content(1, "client", 3, length))
    assert len(data) == length
    assert data == b"".join(streams.content(1, "client", 3, length))
    blocks = [data[place : place + 16 * 1024] for place in range(0, length, 16 * 1024)]
    assert len(set(blocks)) == len(blocks)
    if length > 16:
        assert data != b"".join(streams.content(1, "client", 4, length))
        assert data != b"".join(streams.content(1, "server", 3, length))


def test_mixed_sizes_span_the_orders_of_magnitude():
    sizes = [streams.mixed_size(1, "client", index) for index in range(200)]
    assert (min(sizes), max(sizes)) == (1, 8 << 20)
    assert sum(size < 1000 for size in sizes) > 30
    assert sum(size > 100_000 for size in sizes) > 30


def reports():
    def end(side, pairs):
        return {
            "side": side,
            "errors": [],
            "missing": 0,
            "connections": [
                {
                    "sent": len(out),
                    "sent_sha256": hashlib.sha256(out).hexdigest(),
                    "received": len(back),
                    "received_sha256": hashlib.sha256(back).hexdigest(),
                }
                for out, back in pairs
            ],
        }

    return end("client", [(b"a", b"b"), (b"c", b"d")]), end("server", [(b"d", b"c"), (b"b", b"a")])


def test_ends_that_agree_differ_in_nothing():
    assert streams.differences(*reports()) == []


@pytest.mark.parametrize("key", ["sent", "sent_sha256", "received", "received_sha256"])
def test_one_changed_value_is_a_difference(key):
    client, server = reports()
    changed = copy.deepcopy(server)
    changed["connections"][0][key] = 5 if not key.endswith("sha256") else hashlib.sha256(b"x").hexdigest()
    assert streams.differences(client, changed)


def test_errors_and_missing_connections_are_differences():
    client, server = reports()
    assert streams.differences(client | {"errors": ["0: ConnectionResetError"]}, server)
    assert streams.differences(client, server | {"missing": 1, "connections": server["connections"][1:]})


def test_an_endless_stream_ends_where_it_is_when_it_is_told_to():
    """What disturbs it finds it under way, and both ends agree on what it was."""
    one, other = socket.socketpair()
    client, server = (
        streams.Exchange(streams.Plan(side, "both", 1, lambda index: streams.ENDLESS), 1, 60)
        for side in ("client", "server")
    )
    client.add(one)
    server.add(other)
    found = []
    far = threading.Thread(target=lambda: found.append(server.run()))
    near = threading.Thread(target=lambda: found.append(client.run()))
    far.start()
    near.start()
    wait_for(lambda: client.transfers[0].received > 4 * streams.CHUNK, "more than buffers hold")
    client.end()
    server.end()
    near.join()
    far.join()
    assert streams.differences(*found) == []
    assert found[0]["sent"] > 4 * streams.CHUNK or found[1]["sent"] > 4 * streams.CHUNK
