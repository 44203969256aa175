"""The files for Docker Compose and Kubernetes: valid, and true to what mcencrypt is."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from mcencrypt.store.config import load

ROOT = Path(__file__).resolve().parents[2]
MANIFESTS = sorted((ROOT / "docs" / "kubernetes").glob("*.yaml"))
COMPOSE = sorted((ROOT / "docker").glob("docker-compose*.yml"))
#: Of Kubernetes: the first with sidecars by default, and a recent one.
VERSIONS = ("1.29", "1.34")


def documents(path: Path) -> list[dict[str, Any]]:
    return list(yaml.safe_load_all(path.read_text()))


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
    assert sidecar["startupProbe"]["exec"]["command"] == ["mcencrypt", "status", "--check"]
    assert sidecar["securityContext"]["capabilities"] == {"drop": ["ALL"], "add": ["NET_ADMIN", "NET_RAW"]}
    config = load(None, {one["name"]: one["value"] for one in sidecar["env"]})
    mounts = [Path(mount["mountPath"]) for mount in sidecar["volumeMounts"]]
    for needed in (config.network_key_file, config.state_dir, config.run_dir):
        assert any(needed.is_relative_to(mount) for mount in mounts), needed
    assert not {mount["name"] for mount in sidecar["volumeMounts"]} & {"chain"}


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_sidecars_own_the_network_and_nodes_join_it(path: Path) -> None:
    (file,) = documents(path)
    services = file["services"]
    nodes = {name: one for name, one in services.items() if "network_mode" in one}
    sidecars = {name: one for name, one in services.items() if "network_mode" not in one}
    assert len(nodes) == len(sidecars) in (1, 3)
    for name, node in nodes.items():
        _, _, owner = node["network_mode"].partition("service:")
        assert node["depends_on"] == {owner: {"condition": "service_healthy"}}, name
        assert node["entrypoint"] == ["/bin/sh", "/join"] and node["restart"] == "unless-stopped", name
        assert "ports" not in node, name
    for name, sidecar in sidecars.items():
        assert sidecar["cap_drop"] == ["ALL"] and set(sidecar["cap_add"]) == {"NET_ADMIN", "NET_RAW"}, name
        assert sidecar["read_only"] is True and "privileged" not in sidecar, name
        assert sidecar["healthcheck"]["test"] == ["CMD", "mcencrypt", "status", "--check"], name
        # every setting is one that mcencrypt knows, defaults of variables put in
        settings = {key: value.partition(":-")[2].rstrip("}") or value for key, value in sidecar["environment"].items()}
        config = load(None, settings)
        assert config.p2p_ports() == (7331,) and str(config.network_key_file) == "/run/secrets/network.key", name
