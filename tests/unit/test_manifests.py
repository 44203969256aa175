"""The files for Docker Compose and Kubernetes: valid, and true to what mcencrypt is."""

from __future__ import annotations

import copy
import re
import shutil
import subprocess
import textwrap
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml

from mcencrypt.store.config import load
from tests.helpers.kustomized import documents, rendered

ROOT = Path(__file__).resolve().parents[2]
PODMONITOR = ROOT / "docs" / "kubernetes" / "podmonitor.yaml"
MANIFESTS = sorted(set((ROOT / "docs" / "kubernetes").glob("*.yaml")) - {PODMONITOR})
COMPOSE = sorted((ROOT / "docker").rglob("docker-compose*.yml"))
#: What lists its ports: the default, or what TruBudget's nodes listen on and are published as.
PORTS = {"docker": (7331,), "trubudget": (7447, 7448)}
KUSTOMIZED = ROOT / "docs" / "kubernetes"
#: Of Kubernetes: the first with sidecars by default, and a recent one.
VERSIONS = ("1.29", "1.34")


def pod(manifest: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = manifest["spec"]["template"]["spec"]
    return found


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_manifest_fits_the_api(path: Path, version: str) -> None:
    found = documents(path)
    assert {one["kind"] for one in found} >= {"StatefulSet"}
    for manifest in found:
        kubernetes_validate.validate(manifest, version, strict=True)


def test_validation_notices_what_the_api_does_not_know() -> None:
    (manifest,) = [one for one in documents(MANIFESTS[0]) if one["kind"] == "StatefulSet"]
    for change in ({"restartPolicies": "Always"}, {"restartPolicy": 1}):
        wrong = copy.deepcopy(manifest)
        pod(wrong)["initContainers"][0].update(change)
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_kubernetes_sidecar_comes_first_with_what_it_needs(path: Path) -> None:
    (manifest,) = [one for one in documents(path) if one["kind"] == "StatefulSet"]
    (sidecar,) = pod(manifest)["initContainers"]
    assert sidecar["restartPolicy"] == "Always"
    for probe in ("startupProbe", "readinessProbe"):
        assert sidecar[probe]["exec"]["command"] == ["mcencrypt", "status", "--check"]
    assert sidecar["livenessProbe"]["exec"]["command"] == ["mcencrypt", "status"], "a restart moves no node's port"
    assert sidecar["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    config = load(None, {one["name"]: one["value"] for one in sidecar["env"]})
    mounts = [Path(mount["mountPath"]) for mount in sidecar["volumeMounts"]]
    for needed in (config.network_key_file, config.state_dir, config.run_dir):
        assert any(needed.is_relative_to(mount) for mount in mounts), needed
    assert not {mount["name"] for mount in sidecar["volumeMounts"]} & {"chain"}


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_compose_sidecars_own_the_network_and_nodes_join_it(path: Path) -> None:
    (file,) = documents(path)
    services = file["services"]
    nodes = {name: one for name, one in services.items() if "network_mode" in one}
    sidecars = {name: one for name, one in services.items() if "network_mode" not in one}
    assert len(nodes) == len(sidecars) in (1, 3)
    assert all(node.get("command") for node in nodes.values()), "an entrypoint drops the image's own command"
    for name, node in nodes.items():
        _, _, owner = node["network_mode"].partition("service:")
        assert node["depends_on"] == {owner: {"condition": "service_healthy"}}, name
        assert node["entrypoint"] == ["/bin/sh", "/join"] and node["restart"] == "unless-stopped", name
        assert "ports" not in node, name
    if path.name == "docker-compose.network.yml":
        # multichain-cli does not know the API's port of a node that joins before its second start
        assert all("-rpcport=" in str(node["command"]) for node in nodes.values())
    for name, sidecar in sidecars.items():
        assert "MCENCRYPT_RELAYED" in sidecar["environment"], "docker-proxy is in front of what is published"
        assert sidecar["cap_drop"] == ["ALL"] and set(sidecar["cap_add"]) == {"NET_ADMIN", "NET_RAW"}, name
        assert sidecar["read_only"] is True and "privileged" not in sidecar, name
        assert sidecar["healthcheck"]["test"] == ["CMD", "mcencrypt", "status", "--check"], name
        # every setting is one that mcencrypt knows, defaults of variables put in
        settings = {
            key: value.partition(":-")[2].rstrip("}") if ":-" in value else value
            for key, value in sidecar["environment"].items()
        }
        config = load(None, settings)
        assert (
            config.p2p_ports() == PORTS[path.parent.name] and str(config.network_key_file) == "/run/secrets/network.key"
        ), name


# -- Prometheus Operator


def closed(required: str, **properties: Any) -> dict[str, Any]:
    """An object of these fields and no other; those in `required` must be there."""
    return {
        "type": "object", "properties": properties, "required": required.split(), "additionalProperties": False
    }  # fmt: skip


_TEXT: dict[str, Any] = {"type": "string"}
_LABELS = {"type": "object", "additionalProperties": _TEXT}
#: The fields that are used here, of its custom resource podmonitors.monitoring.coreos.com, v1, as of 0.91.
POD_MONITOR = closed(
    "apiVersion kind metadata spec",
    apiVersion={"const": "monitoring.coreos.com/v1"},
    kind={"const": "PodMonitor"},
    metadata=closed("name", name=_TEXT, labels=_LABELS),
    spec=closed(
        "selector podMetricsEndpoints",
        selector=closed("matchLabels", matchLabels=_LABELS),
        namespaceSelector=closed("", any={"type": "boolean"}, matchNames={"type": "array", "items": _TEXT}),
        podMetricsEndpoints={
            "type": "array",
            "minItems": 1,
            "items": closed("port", port=_TEXT, path=_TEXT, interval={"type": "string", "pattern": r"^\d+(s|m)$"}),
        },
    ),
)


def test_the_pod_monitor_finds_the_sidecar_that_the_page_makes() -> None:
    (monitor,) = documents(PODMONITOR)
    jsonschema.validate(monitor, POD_MONITOR)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**monitor, "spec": {**monitor["spec"], "podMetricEndpoints": []}}, POD_MONITOR)
    (manifest,) = [one for one in documents(MANIFESTS[0]) if one["kind"] == "StatefulSet"]
    selected = monitor["spec"]["selector"]["matchLabels"].items()
    assert selected <= manifest["spec"]["template"]["metadata"]["labels"].items()
    # what docs/kubernetes.md says to add
    page = (ROOT / "docs/kubernetes.md").read_text().partition("## Prometheus")[2].partition("\n## ")[0]
    (block,) = re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)
    added = yaml.safe_load(textwrap.dedent(block).replace("..., ", ""))
    (sidecar,) = pod(manifest)["initContainers"]
    sidecar["env"] += added["env"]
    sidecar["ports"] = added["ports"]
    kubernetes_validate.validate(manifest, VERSIONS[0], strict=True)
    listen = load(None, {one["name"]: one["value"] for one in sidecar["env"]}).metrics_listen
    (port,), (scraped,) = added["ports"], monitor["spec"]["podMetricsEndpoints"]
    assert listen is not None and listen.port == port["containerPort"] and port["name"] == scraped["port"]
    assert scraped["path"] == "/metrics"


def test_the_pages_health_checks_are_a_setting() -> None:
    page = (ROOT / "docs/kubernetes.md").read_text().partition("## Health checks")[2].partition("\n## ")[0]
    (block,) = re.findall(r"(?:^    .*\n)+", page, re.MULTILINE)
    (entry,) = yaml.safe_load(textwrap.dedent(block))
    config = load(None, {entry["name"]: entry["value"]})
    assert [one.version for one in config.probes] == [4, 6]


# -- Kustomize

#: Of TruBudget's chart what counts here: the node's workload, as in production and in a test, and another's.
CHART = [
    {
        "apiVersion": "apps/v1",
        "kind": kind,
        "metadata": {"name": name, "labels": {"app.kubernetes.io/component": component}},
        "spec": {
            **({"serviceName": name} if kind == "StatefulSet" else {}),
            "selector": {"matchLabels": {"app": name}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {
                    "containers": [
                        {
                            "name": name,
                            "image": f"trubudget/{name}:main",
                            "env": [{"name": "P2P_PORT", "value": "7447"}],
                            "volumeMounts": [{"name": "bc-data", "mountPath": "/root/.multichain"}],
                        }
                    ],
                    "volumes": [{"name": "bc-data", "emptyDir": {}}],
                },
            },
        },
    }
    for kind, name, component in (
        ("StatefulSet", "blockchain", "multichain"),
        ("Deployment", "blockchain-test", "multichain"),
        ("Deployment", "api", "api"),
    )
]


@pytest.mark.parametrize("version", VERSIONS)
def test_the_chart_gets_a_sidecar_where_a_node_is_and_nothing_else_changes(version: str) -> None:
    after = rendered(KUSTOMIZED / "trubudget", CHART)
    for before, now in zip(CHART, after, strict=True):
        kubernetes_validate.validate(now, version, strict=True)
        if before["metadata"]["name"] == "api":
            assert now == before
            continue
        (sidecar,) = pod(now).pop("initContainers")
        assert sidecar["restartPolicy"] == "Always"
        settings = {one["name"]: one["value"] for one in sidecar["env"]}
        config = load(None, settings)
        assert 7447 in config.p2p_ports()
        mounts = {Path(mount["mountPath"]): mount["name"] for mount in sidecar["volumeMounts"]}
        for needed in (config.network_key_file, config.state_dir, config.run_dir, Path("/run/xtables.lock")):
            assert any(needed.is_relative_to(mount) for mount in mounts), needed
        # Kubernetes changes the mode of what is mounted where a pod has an fsGroup
        assert Path("/run/secrets") in config.network_key_file.parents
        assert set(mounts.values()) <= {volume["name"] for volume in pod(now)["volumes"]}
        pod(now)["volumes"] = [one for one in pod(now)["volumes"] if one["name"] not in mounts.values()]
        assert now == before


def test_a_workload_that_is_labelled_gets_the_component() -> None:
    (manifest,) = [one for one in documents(MANIFESTS[0]) if one["kind"] == "StatefulSet"]
    labelled = copy.deepcopy(manifest)
    labelled["metadata"]["labels"]["mcencrypt"] = "sidecar"
    one, other = rendered(KUSTOMIZED / "component", [manifest, labelled])
    assert one == manifest
    kubernetes_validate.validate(other, VERSIONS[0], strict=True)


@pytest.mark.subprocesses
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not there")
def test_kustomize_makes_the_same_of_it() -> None:
    render = KUSTOMIZED / "trubudget" / "render"
    done = subprocess.run([render], input=yaml.safe_dump_all(CHART), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    by_name = {one["metadata"]["name"]: one for one in yaml.safe_load_all(done.stdout)}
    for expected in rendered(KUSTOMIZED / "trubudget", CHART):
        assert by_name[expected["metadata"]["name"]] == expected


def test_the_recipe_for_a_compose_file_that_exists_is_one() -> None:
    """docs/docker.md: what was the node's is the sidecar's, and nothing that excludes each other is together."""
    text = (ROOT / "docs/docker.md").read_text()
    recipe = text.partition("## Into a compose file")[2].partition("\n## ")[0]
    blocks = re.findall(r"(?:^    .*\n)+", recipe, re.MULTILINE)
    before, after = (yaml.safe_load(textwrap.dedent(block)) for block in blocks)
    node, sidecar = after["node"], after["mcencrypt"]
    assert sidecar["ports"] == before["node"]["ports"] and not {"ports", "networks"} & set(node)
    [(name, network)] = sidecar["networks"].items()
    assert {**before["node"]["networks"][name], "aliases": ["node"]} == network
    assert node["network_mode"] == "service:mcencrypt" and node["command"] and node["restart"] == "unless-stopped"
    template = yaml.safe_load((ROOT / "docker/docker-compose.yml").read_text())["services"]["node"]
    assert node["entrypoint"] == template["entrypoint"] and set(node["volumes"]) <= set(template["volumes"])


@pytest.mark.subprocesses
def test_join_without_a_command_says_so_at_once() -> None:
    done = subprocess.run(["sh", str(ROOT / "docker/join")], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "join: no command" in done.stderr
