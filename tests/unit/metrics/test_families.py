"""Names, help, labels and values, in both formats."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from mcencrypt.core.reasons import REASONS
from mcencrypt.metrics import exporter
from tests.helpers.exported import text_of
from tests.helpers.sides import Side
from tests.helpers.station import snapshot_of


def values(text: str, parse: Callable[[str], Any] = parse_text) -> dict[str, float]:
    """Samples by name and label values, as `name{value}`."""
    found = {}
    for family in parse(text):
        for sample in family.samples:
            labels = "{" + ",".join(sample.labels.values()) + "}" if sample.labels else ""
            found[sample.name + labels] = sample.value
    return found


def test_both_formats_say_the_same(snapshot: dict[str, Any]) -> None:
    plain, plain_type = text_of(snapshot)
    modern, modern_type = text_of(snapshot, exporter.OPENMETRICS)
    assert plain_type.startswith("text/plain; version=0.0.4") and modern_type.startswith(exporter.OPENMETRICS)
    assert values(plain) == values(modern, parse_openmetrics)
    found = values(plain)
    assert found["mcencrypt_bytes_total{in}"] == 5 and found["mcencrypt_connections{encrypted}"] == 1
    assert found["mcencrypt_refused_total{not-a-handshake}"] == 1 and found["mcencrypt_rules_lost_total"] == 2
    assert found["mcencrypt_mode{require}"] == 1 and found["mcencrypt_mode{prefer}"] == 0
    assert found['mcencrypt_build_info{compiled,1.0"\\}'] == 1 and found["process_start_time_seconds"] == 1.7e9
    assert found["mcencrypt_queue_dropped_packets_total{queue}"] == 1


def test_sockets_that_are_not_covered_and_the_end_of_a_signed_list(snapshot: dict[str, Any]) -> None:
    found = values(text_of(snapshot)[0])
    assert found["mcencrypt_uncovered_sockets"] == found["mcencrypt_peers_list_expires_seconds"] == 0
    found = values(text_of({**snapshot, "uncovered": 2, "peers_list_expires": 1795000000})[0])
    assert found["mcencrypt_uncovered_sockets"] == 2
    assert found["mcencrypt_peers_list_expires_seconds"] == 1795000000


def test_names_units_and_labels_follow_the_rules(snapshot: dict[str, Any]) -> None:
    body, _ = text_of(snapshot)
    for family in parse_text(body):
        assert re.fullmatch(r"(mcencrypt|process)_[a-z_]+", family.name) and family.documentation, family.name
        assert not re.search(r"_(milli|micro|kilo|ms|us|kb|mb)", family.name)
        for sample in family.samples:
            assert (family.type == "counter") == sample.name.endswith("_total"), sample.name


def test_the_number_of_series_does_not_depend_on_what_happens(snapshot: dict[str, Any]) -> None:
    idle = set(values(text_of(snapshot_of(Side().engine))[0]))
    busy = set(values(text_of(snapshot)[0]))
    assert {name for name in idle ^ busy if not name.startswith("mcencrypt_node_info")} == set()
    assert {f"mcencrypt_refused_total{{{reason}}}" for reason in REASONS} <= idle
    assert "10.0.0.1" not in str(snapshot), "no peer's address leaves the daemon"
