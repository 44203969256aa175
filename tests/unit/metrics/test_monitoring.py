"""docs/monitoring: dashboard and alert rules ask for what there is, in the form that Grafana and Prometheus take."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from lab.promql import selectors, unmet
from mcencrypt.metrics.families import families
from tests.helpers.sides import Side
from tests.helpers.station import snapshot_of

DOCS = Path(__file__).parents[3] / "docs"
DASHBOARD = DOCS / "monitoring" / "dashboard.json"
ALERTS = DOCS / "monitoring" / "alerts.yml"
PROMTOOL = shutil.which("promtool") or shutil.which("promtool", path=str(Path(sys.executable).parent))

Series = list[tuple[str, dict[str, str]]]


@pytest.fixture(scope="module")
def series() -> Series:
    """Every time series that a daemon has."""
    from prometheus_client import CollectorRegistry, generate_latest
    from prometheus_client.registry import Collector

    class Daemon(Collector):
        def collect(self) -> Iterator[Any]:
            return families(snapshot_of(Side().engine))

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Daemon())
    text = generate_latest(registry).decode()
    return [(one.name, one.labels) for family in text_string_to_metric_families(text) for one in family.samples]


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    return json.loads(DASHBOARD.read_text())  # type: ignore[no-any-return]


def expressions(dashboard: dict[str, Any]) -> list[str]:
    found = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    found += [one["expr"] for one in dashboard["annotations"]["list"]]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            found += re.findall(r"label_values\((.*), \w+\)", variable["query"]["query"])
    return found


def rules() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(ALERTS.read_text())["groups"] for rule in group["rules"]]


# -- the checker itself


def test_selectors_are_found_and_nothing_else_is() -> None:
    expression = 'sum by (job) (rate(a_total{x="1", y=~"b|c"}[5m])) / on (job) a > 0 and up or time() - b{} offset 5m'
    assert selectors(expression) == [
        ("a_total", (("x", "=", "1"), ("y", "=~", "b|c"))), ("a", ()), ("up", ()), ("b", ()),
    ]  # fmt: skip
    with pytest.raises(ValueError, match="matcher"):
        selectors("a{x}")


def test_what_is_not_there_is_named() -> None:
    there = [("a_total", {"x": "1"}), ("a_total", {"x": "2"})]
    assert unmet('rate(a_total{x=~"1|3",job="j"}[5m]) + up + a_total{x!="1"}', there) == []
    assert unmet("a + b_total", there) == ["a", "b_total"]
    assert unmet('a_total{x="3"}', there) and unmet('a_total{y="1"}', there) and unmet('a_total{x!~"1|2"}', there)


# -- dashboard


def test_the_dashboard_asks_for_what_there_is(dashboard: dict[str, Any], series: Series) -> None:
    asked = expressions(dashboard)
    assert len(asked) > 25
    assert {expression: missing for expression in asked if (missing := unmet(expression, series))} == {}


def test_grafana_knows_every_field_of_the_dashboard(dashboard: dict[str, Any]) -> None:
    """Read into Grafana's own types, which drop what they do not know, and written again, nothing is lost."""
    plugins = pytest.importorskip("grafana_foundation_sdk.cog.plugins")
    from grafana_foundation_sdk.cog.encoder import JSONEncoder
    from grafana_foundation_sdk.models.dashboard import Dashboard

    plugins.register_default_plugins()
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    assert list(lost(dashboard, again)) == []
    spoilt = json.loads(json.dumps(dashboard).replace('"gridPos"', '"gridpos"').replace('"fillOpacity"', '"opacity"'))
    again = json.loads(JSONEncoder().encode(Dashboard.from_json(spoilt)))
    assert list(lost(spoilt, again)), "this test can fail"


def lost(before: Any, after: Any, path: str = "") -> Iterator[str]:
    if isinstance(before, dict) and isinstance(after, dict):
        for key, value in before.items():
            yield from lost(value, after[key], f"{path}/{key}") if key in after else [f"{path}/{key}"]
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from lost(one, other, f"{path}/{index}")
    elif before != after:
        yield f"{path}: {before!r} became {after!r}"


def test_panels_have_a_place_each_and_the_chosen_data_source(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["title"] and panel["description"], "a panel explains itself"
        for asking in (panel, *panel["targets"]):
            assert asking["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
        for target in panel["targets"]:
            assert 'job=~"$job"' in target["expr"] and 'instance=~"$instance"' in target["expr"]
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


# -- alerts


def test_the_rules_ask_for_what_there_is(series: Series) -> None:
    found = rules()
    assert len(found) >= 5
    assert {rule["alert"]: missing for rule in found if (missing := unmet(rule["expr"], series))} == {}


def test_each_rule_says_how_bad_it_is_and_what_to_do() -> None:
    found = rules()
    assert len({rule["alert"] for rule in found}) == len(found)
    for rule in found:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}
        assert re.fullmatch(r"Mcencrypt[A-Za-z]+", rule["alert"])
        assert rule["labels"]["severity"] in ("critical", "warning")
        assert set(rule["annotations"]) == {"summary", "description"} and "$labels.instance" in str(rule)


@pytest.mark.subprocesses
@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian: prometheus)")
def test_prometheus_takes_the_rules_and_they_fire_when_they_should() -> None:
    promtool("check", "rules", ALERTS)
    promtool("test", "rules", Path(__file__).with_name("alerts_test.yml"))


@pytest.mark.subprocesses
@pytest.mark.skipif(PROMTOOL is None, reason="needs promtool (Debian: prometheus)")
def test_prometheus_understands_every_expression_of_the_dashboard(dashboard: dict[str, Any], tmp_path: Path) -> None:
    def rule(number: int, expression: str) -> dict[str, str]:
        return {"record": f"panel_{number}", "expr": expression.replace("$__rate_interval", "5m")}

    found = [rule(number, expression) for number, expression in enumerate(expressions(dashboard))]
    file = tmp_path / "rules.yml"
    file.write_text(json.dumps({"groups": [{"name": "dashboard", "rules": found}]}))
    promtool("check", "rules", file)


def promtool(*words: object) -> None:
    done = subprocess.run([str(PROMTOOL), *map(str, words)], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


# -- documentation


def test_the_documentation_lists_every_metric_and_every_alert(series: Series) -> None:
    text = (DOCS / "monitoring.md").read_text()
    there = {name for name, _ in series}
    assert there - set(re.findall(r"\b(?:mcencrypt|process)_[a-z_]+\b", text)) == set()
    assert set(re.findall(r"\bmcencrypt_[a-z_]+\b", text)) - there == set()
    assert {rule["alert"] for rule in rules()} - set(re.findall(r"\bMcencrypt\w+", text)) == set()
