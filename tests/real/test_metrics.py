"""Metrics of real daemons, scraped over HTTP while they work."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from lab import direct_pair, transfer, wait_for
from lab.promql import unmet
from tests.helpers.nodes import PORT, needs_lab
from tests.helpers.pairs import EncryptedPair, encrypted, talking
from tests.helpers.scraped import ADDRESS, samples, scrape

pytestmark = needs_lab

MONITORING = Path(__file__).parents[2] / "docs" / "monitoring"


def exporter_of(pid: int) -> int:
    """The process id of a daemon's exporter."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    (found,) = (int(child) for child in children if b"metrics.exporter" in Path(f"/proc/{child}/cmdline").read_bytes())
    return found


@pytest.fixture(scope="module")
def pair() -> Iterator[EncryptedPair]:
    with direct_pair() as net, encrypted(net, metrics_listen=ADDRESS, log_format="json") as pair:
        yield pair


def test_a_scrape_says_what_the_status_says(pair: EncryptedPair) -> None:
    with talking(pair, items_every=0):
        wait_for(lambda: pair.a.connections("encrypted"), "the connection to be encrypted")
        before, found = pair.a.status(), samples(scrape(pair.a))
        after = pair.a.status()
        for name, label in (("bytes", "out"), ("bytes", "in"), ("records", "out"), ("records", "in")):
            value = found[f"mcencrypt_{name}_total/{label}"]
            assert before["totals"][f"{name}_{label}"] <= value <= after["totals"][f"{name}_{label}"]
        assert found["mcencrypt_bytes_total/out"] > 0
        assert found["mcencrypt_connections/encrypted"] == found["mcencrypt_peers"] == found["mcencrypt_enabled"] == 1
        assert found[f"mcencrypt_node_info/{before['identity']}/{before['key_id']}"] == 1
        assert found["mcencrypt_mode/require"] == 1
        assert 10 << 20 < found["process_resident_memory_bytes"] < 80 << 20


def test_top_shows_what_flows(pair: EncryptedPair) -> None:
    with talking(pair):
        wait_for(lambda: pair.a.connections("encrypted"), "the connection to be encrypted")
        lines = pair.a.mcencrypt("top", "--once").stdout.splitlines()
        rows = [line for line in lines if f"{pair.b.v4}:{PORT}" in line and " encrypted " in line]
        assert rows and pair.b.status()["identity"][:12] in rows[0], "shortened where the terminal is narrow"
        assert lines[0].startswith("mcencrypt is on (require)")
        assert any(line.startswith("data") and "out 0 B/s" not in line for line in lines)


def test_openmetrics_is_served_as_well(pair: EncryptedPair) -> None:
    plain, modern = scrape(pair.b), scrape(pair.b, "application/openmetrics-text")
    assert modern.endswith("# EOF\n")
    assert set(samples(plain)) == set(samples(modern, parse_openmetrics))


def test_dashboard_and_alerts_ask_for_what_a_daemon_has(pair: EncryptedPair) -> None:
    series = [(one.name, one.labels) for family in parse_text(scrape(pair.a)) for one in family.samples]
    dashboard = json.loads((MONITORING / "dashboard.json").read_text())
    asked = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    rules = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
    asked += [rule["expr"] for rule in rules]
    assert len(asked) > 30
    assert {expression: missing for expression in asked if (missing := unmet(expression, series))} == {}


def test_counters_never_fall_and_series_never_come_or_go(pair: EncryptedPair) -> None:
    first = scrape(pair.b)
    transfer(pair.a.host, pair.b.host, PORT, size=200_000)
    pair.settle()
    pair.a.mcencrypt("off")
    pair.a.mcencrypt("on")
    second = scrape(pair.b)
    counters = [family.name for family in parse_text(first) if family.type == "counter"]
    before, after = samples(first), samples(second)
    assert set(before) == set(after)
    for name, value in before.items():
        if re.split(r"_total\b", name)[0] in counters:
            assert after[name] >= value, name
    assert after["mcencrypt_bytes_total/in"] - before["mcencrypt_bytes_total/in"] >= 200_000
    assert after["mcencrypt_connections/encrypted"] == 0


def test_off_is_seen(pair: EncryptedPair) -> None:
    assert samples(scrape(pair.a))["mcencrypt_enabled"] == 1
    pair.a.mcencrypt("off")
    try:
        assert samples(scrape(pair.a))["mcencrypt_enabled"] == 0
    finally:
        pair.a.mcencrypt("on")


def test_the_exporter_has_no_rights_and_no_files_of_the_daemon(pair: EncryptedPair) -> None:
    pid = exporter_of(pair.a.pid)
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    assert set(status["Uid"].split()) == {"65534"} and int(status["CapEff"], 16) == 0
    assert os.sched_getscheduler(pid) == os.SCHED_OTHER, "it does not stand in the packets' way"
    kinds = [os.readlink(entry).partition(":")[0] for entry in Path(f"/proc/{pid}/fd").iterdir()]
    assert kinds.count("socket") == 2, "one listens, one speaks with the daemon; no queue, no netlink"


def test_an_exporter_that_is_killed_comes_back_and_traffic_goes_on(pair: EncryptedPair) -> None:
    with talking(pair) as (a, _):
        pid = exporter_of(pair.a.pid)
        events = len(a.events())
        os.kill(pid, 9)
        wait_for(lambda: Path(f"/proc/{pid}").exists() is False, "it to be waited for")
        wait_for(lambda: len(a.events()) > events, "the node to go on")
        # The port listens all the time, so a scrape waits until the new one is ready.
        assert samples(scrape(pair.a))["mcencrypt_connections/encrypted"] == 1
    assert "the metrics exporter ended" in pair.a.log()


def test_logs_are_json_line_by_line(pair: EncryptedPair) -> None:
    found = [json.loads(line) for line in pair.a.log().splitlines()]
    assert len(found) > 3
    assert all({"time", "level", "message"} <= set(line) <= {"time", "level", "message", "fields"} for line in found)
    encrypted = [line for line in found if line["message"] == "connection encrypted"]
    assert encrypted and all(":" in line["fields"]["peer"] for line in encrypted)


def test_the_exporter_ends_with_a_daemon_that_is_killed(pair: EncryptedPair) -> None:
    pid = exporter_of(pair.b.pid)
    pair.b.kill()
    wait_for(lambda: not Path(f"/proc/{pid}").exists(), "the exporter to end")
    pair.b.start()
    assert samples(scrape(pair.b))["mcencrypt_bytes_total/in"] == 0, "the same port, and counters from 0"


def test_a_port_in_use_ends_the_start_before_any_rule(pair: EncryptedPair) -> None:
    with talking(pair):
        pass
    pair.b.kill()

    def taken() -> bool:
        return bool(pair.b.run(["ss", "-Hltn", "sport = :9464"]).stdout.strip())

    # by the exporter, which sees a moment later that its daemon is gone
    wait_for(lambda: not taken(), "the port to be free")
    holder = pair.b.python("http.server", "--bind", "127.0.0.1", "9464")
    try:
        wait_for(taken, "the port to be taken")
        rules = pair.b.rules()
        done = pair.b.mcencrypt("daemon", check=False)
        assert done.returncode == 1
        (line,) = done.stderr.splitlines()
        assert json.loads(line)["message"].startswith(f"metrics_listen: {ADDRESS}: another program listens there")
        assert pair.b.rules() == rules
    finally:
        holder.stop()
        pair.b.start()
