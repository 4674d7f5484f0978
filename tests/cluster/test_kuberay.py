"""KubeRay's definitions have nothing against our files, and everything against our typos."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

RAY_KINDS = ("RayCluster", "RayJob")


def ray_document(documents, kind: str) -> dict[str, Any]:
    (document,) = (each for (found, _), each in documents.items() if found == kind)
    return document


def declared_keys(node: Any, path: tuple = ()) -> Iterator[tuple]:
    """Paths of keys that have a meaning; those of maps such as labels are anybody's."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield (*path, key)
            if key not in (
                "labels",
                "metadata",
                "rayStartParams",
                "nodeSelector",
                "requests",
                "limits",
                "matchLabels",
            ):
                yield from declared_keys(value, (*path, key))
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from declared_keys(value, (*path, number))


def misspelt(document: dict[str, Any], path: tuple) -> dict[str, Any]:
    changed = copy.deepcopy(document)
    *folders, key = path
    place: Any = changed
    for folder in folders:
        place = place[folder]
    place[key[:-1] + key[-1] * 2] = place.pop(key)
    return changed


@pytest.mark.parametrize("kind", RAY_KINDS)
def test_kuberay_accepts_it(kind, documents, validators):
    assert validators[kind](ray_document(documents, kind)) == []


@pytest.mark.parametrize("kind", RAY_KINDS)
def test_a_misspelt_field_is_refused(kind, documents, validators):
    document = json.loads(json.dumps(ray_document(documents, kind)))  # without shared pieces
    paths = [("spec", *path) for path in declared_keys(document["spec"])]
    assert len(paths) > 200
    for path in random.Random(0).sample(paths, 40):
        assert validators[kind](misspelt(document, path)), ".".join(map(str, path))


@pytest.mark.parametrize("change", [{"replicas": "four"}, {"maxReplicas": None}, {"template": {"spec": {}}}])
def test_a_value_of_the_wrong_kind_is_refused(change, documents, validators):
    document = copy.deepcopy(ray_document(documents, "RayCluster"))
    document["spec"]["workerGroupSpecs"][0] |= change
    assert validators["RayCluster"](document)


def test_the_job_brings_the_cluster_of_the_other_file(documents):
    job, cluster = ray_document(documents, "RayJob"), ray_document(documents, "RayCluster")
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]


def test_pools_do_not_overlap(documents):
    spec = ray_document(documents, "RayCluster")["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    pools = {}
    for group in spec["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        # The way it has to be written for Ray's command line: a JSON text in quotes.
        pools[group["groupName"]] = json.loads(json.loads(group["rayStartParams"]["resources"].strip("'")))
        assert pod["nodeSelector"] == {"xdub.io/pool": group["groupName"]}
    for marker in ("train", "pairgen", "data"):
        assert [name for name, resources in pools.items() if marker in resources] == [marker]
    train, pairgen, _ = spec["workerGroupSpecs"]
    assert pools["train"]["train"] == int(
        train["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"]
    )
    assert train["maxReplicas"] * pools["train"]["train"] == 32
    spot = {"key": "xdub.io/spot", "operator": "Exists", "effect": "NoSchedule"}
    assert spot in pairgen["template"]["spec"]["tolerations"]
    assert spot not in train["template"]["spec"]["tolerations"]


def test_calls_need_the_token_of_a_secret(documents):
    assert ray_document(documents, "RayCluster")["spec"]["authOptions"] == {
        "mode": "token",
        "secretName": "xdub-ray-token",
    }
