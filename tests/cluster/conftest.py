"""Fixtures of the cluster files, and JSON schemas from KubeRay's definitions if this machine has them."""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

ROOT = Path(__file__).parents[2]
KUBERAY = ROOT / "cluster/kuberay"
CRDS = Path(os.environ.get("XDUB_KUBERAY_CRDS") or ROOT.parent / "shared/data/kuberay")
KINDS = {"RayCluster": "ray.io_rayclusters.yaml", "RayJob": "ray.io_rayjobs.yaml"}


@pytest.fixture(scope="session")
def aws() -> dict[str, Any]:
    """Read the file for `ray up`."""
    return yaml.safe_load((ROOT / "cluster/aws.yaml").read_text("utf-8"))


@pytest.fixture(scope="session")
def documents() -> dict[tuple[str, str], dict[str, Any]]:
    """Read all Kubernetes objects, by kind and name."""
    parts = [each for path in KUBERAY.glob("*.yaml") for each in yaml.safe_load_all(path.read_text("utf-8"))]
    objects = [each for each in parts if each]
    metadata = [each["metadata"] for each in objects]
    names = [(o["kind"], m.get("name") or m["generateName"]) for o, m in zip(objects, metadata, strict=True)]
    assert len(set(names)) == len(names)
    return dict(zip(names, objects, strict=True))


@pytest.fixture(scope="session")
def pods(documents) -> dict[str, dict[str, Any]]:
    """Collect the spec of every pod template, by its path in the objects."""
    specs: dict[str, dict[str, Any]] = {}

    def collect(node: Any, path: str) -> None:
        if isinstance(node, dict):
            if "containers" in node:
                specs[path] = node
            for key, value in node.items():
                collect(value, f"{path}.{key}")
        elif isinstance(node, list):
            for number, value in enumerate(node):
                collect(value, f"{path}.{number}")

    for (kind, name), document in documents.items():
        collect(document, f"{kind}/{name}")
    assert len(specs) == 11, "two Ray clusters of four pools, a submitter, MLflow, PostgreSQL"
    return specs


@pytest.fixture(scope="session")
def validators() -> dict[str, Callable[[dict[str, Any]], list[str]]]:
    """Return for each kind a function that lists the violations of KubeRay's definition, with unknown fields."""
    missing = [name for name in KINDS.values() if not (CRDS / name).is_file()]
    if missing:
        pytest.skip(
            f"KubeRay's definitions are not in {CRDS} ({', '.join(missing)}); name their folder in XDUB_KUBERAY_CRDS"
        )
    return {kind: _validator(CRDS / name) for kind, name in KINDS.items()}


def _validator(path: Path) -> Callable[[dict[str, Any]], list[str]]:
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    crd = yaml.load(path.read_text("utf-8"), Loader=loader)
    (version,) = (each for each in crd["spec"]["versions"] if each["name"] == "v1")
    schema = _strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
    schema["properties"]["metadata"] = {"type": "object"}
    validator = jsonschema.Draft7Validator(schema)
    return lambda document: [f"{each.json_path}: {each.message}" for each in validator.iter_errors(document)]


def _strict(schema: Any) -> Any:
    """Forbid undeclared fields in a schema, as `kubectl --validate=strict` does."""
    if isinstance(schema, list):
        return [_strict(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    schema = {key: _strict(value) for key, value in schema.items()}
    if schema.get("x-kubernetes-int-or-string") is True:
        return {"type": ["integer", "string"]}
    if "properties" in schema and schema.get("x-kubernetes-preserve-unknown-fields") is not True:
        schema.setdefault("additionalProperties", False)
    return schema
