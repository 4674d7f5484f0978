"""Tests of cluster/kuberay: KubeRay's definitions accept our files and refuse misspelt ones."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

RAY_KINDS = ("RayCluster", "RayJob")
FREE = {"labels", "metadata", "rayStartParams", "nodeSelector", "requests", "limits", "matchLabels"}
"""Maps whose keys KubeRay does not restrict."""


def ray_document(documents, kind: str) -> dict[str, Any]:
    """Return the only object of a kind."""
    (document,) = (each for (each_kind, _), each in documents.items() if each_kind == kind)
    return document


def declared_keys(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """Yield the paths of keys that KubeRay declares, without the free keys of maps such as labels."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            if key not in FREE:
                yield from declared_keys(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from declared_keys(value, (*path, number))


def misspelt(document: dict[str, Any], path: tuple) -> dict[str, Any]:
    """Return a copy of the object with the last letter of one key doubled."""
    changed = copy.deepcopy(document)
    *parents, key = path
    node: Any = changed
    for parent in parents:
        node = node[parent]
    node[key[:-1] + key[-1] * 2] = node.pop(key)
    return changed


@pytest.mark.parametrize("kind", RAY_KINDS)
def test_kuberay_accepts_the_objects(kind, documents, validators):
    assert validators[kind](ray_document(documents, kind)) == []


@pytest.mark.parametrize("kind", RAY_KINDS)
def test_kuberay_refuses_a_misspelt_field(kind, documents, validators):
    # YAML anchors share parts of an object; a copy through JSON does not.
    document = json.loads(json.dumps(ray_document(documents, kind)))
    paths = [("spec", *path) for path in declared_keys(document["spec"])]
    assert len(paths) > 200
    for path in random.Random(0).sample(paths, 40):
        assert validators[kind](misspelt(document, path)), ".".join(map(str, path))


@pytest.mark.parametrize("change", [{"replicas": "four"}, {"maxReplicas": None}, {"template": {"spec": {}}}])
def test_kuberay_refuses_a_value_of_the_wrong_type(change, documents, validators):
    document = copy.deepcopy(ray_document(documents, "RayCluster"))
    document["spec"]["workerGroupSpecs"][0] |= change
    assert validators["RayCluster"](document)


def test_the_job_file_has_the_same_cluster_as_the_cluster_file(documents):
    job, cluster = ray_document(documents, "RayJob"), ray_document(documents, "RayCluster")
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]


def test_every_resource_marker_belongs_to_one_pool(documents):
    spec = ray_document(documents, "RayCluster")["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    pools = {}
    for group in spec["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        # Ray's command line needs a JSON text in quotes.
        pools[group["groupName"]] = json.loads(json.loads(group["rayStartParams"]["resources"].strip("'")))
        assert pod["nodeSelector"] == {"xdub.io/pool": group["groupName"]}
    for marker in ("train", "pairgen", "data"):
        assert [name for name, resources in pools.items() if marker in resources] == [marker]
    train, pairgen, _ = spec["workerGroupSpecs"]
    limits = train["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert pools["train"]["train"] == int(limits["nvidia.com/gpu"])
    assert train["maxReplicas"] * pools["train"]["train"] == 32
    spot = {"key": "xdub.io/spot", "operator": "Exists", "effect": "NoSchedule"}
    assert spot in pairgen["template"]["spec"]["tolerations"]
    assert spot not in train["template"]["spec"]["tolerations"]


def test_calls_to_ray_need_the_token_of_a_kubernetes_secret(documents):
    assert ray_document(documents, "RayCluster")["spec"]["authOptions"] == {
        "mode": "token",
        "secretName": "xdub-ray-token",
    }
