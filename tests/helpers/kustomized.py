"""What Kustomize makes of a kustomization, as far as docs/kubernetes uses it: components, and patches by label.

A patch is merged as Kubernetes merges (strategic merge): objects key by key, lists of named things by their names, the
patch's first, other lists as a whole. Where kubectl is there, a test compares.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

Manifest = dict[str, Any]


def documents(path: Path) -> list[Manifest]:
    """All manifests of a file."""
    return list(yaml.safe_load_all(path.read_text()))


def rendered(folder: Path, resources: Sequence[Manifest]) -> list[Manifest]:
    """The resources after the kustomization in that folder; what its own `resources` names is not read."""
    (kustomization,) = documents(folder / "kustomization.yaml")
    found = copy.deepcopy(list(resources))
    for component in kustomization.get("components", []):
        found = rendered((folder / component).resolve(), found)
    for patch in kustomization.get("patches", []):
        (change,) = documents(folder / patch["path"]) if "path" in patch else [yaml.safe_load(patch["patch"])]
        found = [merged(one, _nameless(change)) if _meant(one, patch["target"]) else one for one in found]
    return found


def merged(one: Any, change: Any) -> Any:
    """`one` with `change` merged into it."""
    if isinstance(one, dict) and isinstance(change, dict):
        return one | {key: merged(one[key], value) if key in one else value for key, value in change.items()}
    if isinstance(one, list) and isinstance(change, list) and all("name" in item for item in one + change):
        there = {item["name"]: item for item in one}
        return [merged(there.pop(item["name"], {}), item) for item in change] + list(there.values())
    return copy.deepcopy(change)


def _nameless(change: Manifest) -> Manifest:
    """What it says of whom it is for gives way to the target."""
    return {key: value for key, value in change.items() if key not in ("apiVersion", "kind", "metadata")}


def _meant(manifest: Manifest, target: dict[str, str]) -> bool:
    label, _, value = target["labelSelector"].partition("=")
    labels = manifest["metadata"].get("labels", {})
    return re.fullmatch(target["kind"], manifest["kind"]) is not None and labels.get(label) == value
