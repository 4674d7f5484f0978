"""Tests of cluster/aws.yaml: Ray accepts it, no machine is public, and pair workers stay off the training machines."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).parents[2]


def refused(config: dict[str, Any]) -> str | None:
    """Return Ray's error for a cluster file, or None if Ray accepts it."""
    try:
        validate_config(prepare_config(copy.deepcopy(config)))
    except Exception as error:
        return str(error)
    return None


def declared_keys(config: dict[str, Any]) -> Iterator[tuple[str, ...]]:
    """Yield the paths of keys that Ray's schema declares; Ray does not check `node_config`, which is AWS's."""
    for key, value in config.items():
        yield (key,)
        if key in ("auth", "docker"):
            yield from ((key, inner) for inner in value)
    for name, node in config["available_node_types"].items():
        for key, value in node.items():
            yield ("available_node_types", name, key)
            if key == "docker":
                yield from (("available_node_types", name, key, inner) for inner in value)


def misspelt(config: dict[str, Any], path: tuple[str, ...]) -> dict[str, Any]:
    """Return a copy of the configuration with the last letter of one key doubled."""
    changed = copy.deepcopy(config)
    *parents, key = path
    node = changed
    for parent in parents:
        node = node[parent]
    node[key[:-1] + key[-1] * 2] = node.pop(key)
    return changed


def test_ray_accepts_the_cluster_file(aws):
    assert refused(aws) is None


def test_ray_refuses_a_misspelt_key_anywhere(aws):
    paths = list(declared_keys(aws))
    assert len(paths) > 40
    accepted = [".".join(path) for path in paths if refused(misspelt(aws, path)) is None]
    assert accepted == []


@pytest.mark.parametrize("value", ["8", 1.5, -1])
def test_ray_refuses_an_amount_that_is_not_a_count(aws, value):
    config = copy.deepcopy(aws)
    config["available_node_types"]["train"]["resources"]["train"] = value
    assert refused(config)


def test_every_resource_marker_belongs_to_one_pool(aws):
    pools = {name: node["resources"] for name, node in aws["available_node_types"].items()}
    assert pools["head"] == {"CPU": 0}
    assert pools["train"]["train"] == pools["train"]["GPU"] == 8
    assert pools["pairgen"]["pairgen"] == pools["pairgen"]["GPU"] == 1
    for marker in ("train", "pairgen", "data"):
        assert [name for name, resources in pools.items() if marker in resources] == [marker]


def test_the_training_pool_has_the_32_gpus_of_80_gb_of_the_papers_run(aws):
    train = aws["available_node_types"]["train"]
    assert train["max_workers"] * train["resources"]["GPU"] == 32
    assert train["node_config"]["InstanceType"] == "p4de.24xlarge", "80 GB; p4d has 40"
    most = sum(node["max_workers"] for name, node in aws["available_node_types"].items() if name != "head")
    assert aws["max_workers"] == most


def test_only_pair_generators_are_spot_machines(aws):
    markets = {
        n: node["node_config"].get("InstanceMarketOptions") for n, node in aws["available_node_types"].items()
    }
    assert markets.pop("pairgen") == {"MarketType": "spot"}
    assert set(markets.values()) == {None}


def test_no_machine_is_public_and_ray_opens_no_port(aws):
    assert aws["provider"]["use_internal_ips"] is True
    assert aws["provider"].get("use_external_head_ip", False) is False
    # Without a group in the file, Ray creates one that opens port 22 to everyone.
    assert "security_group" not in aws["provider"]
    for name, node in aws["available_node_types"].items():
        config = node["node_config"]
        cards = config.get("NetworkInterfaces", [config | {"Groups": config.get("SecurityGroupIds")}])
        assert all(card["Groups"] for card in cards), name
        assert not any(card.get("AssociatePublicIpAddress") for card in cards), name
        assert config["MetadataOptions"]["HttpTokens"] == "required", f"{name}: IMDSv2"
        assert all(disk["Ebs"]["Encrypted"] for disk in config["BlockDeviceMappings"]), name


def test_the_dashboard_is_on_loopback_and_the_token_is_in_a_file_that_is_never_printed(aws):
    (start,) = (each for each in aws["head_start_ray_commands"] if "--head" in each)
    assert "--dashboard-host=127.0.0.1" in start
    options = " ".join(aws["docker"]["run_options"])
    assert "RAY_AUTH_MODE=token" in options and "RAY_AUTH_TOKEN_PATH=/shared/" in options
    assert not re.search(r"RAY_AUTH_TOKEN=|PASSWORD=|SECRET", (ROOT / "cluster/aws.yaml").read_text("utf-8"))
    commands = [c for key, c in aws.items() if key.endswith("_commands")]
    for command in (each for group in commands for each in group if "token" in each):
        assert not re.search(r"\b(cat|echo|tee|get-auth-token|set -x)\b", command), command
    assert any("umask 077" in command for command in aws["initialization_commands"])


def test_the_readme_explains_every_blank_of_the_cluster_files(aws):
    files = ("cluster/aws.yaml", "cluster/kuberay/storage.yaml")
    texts = [(ROOT / name).read_text("utf-8") for name in files]
    blanks = {blank for text in texts for blank in re.findall(r"FILL-IN-[A-Z0-9-]+", text)}
    readme = (ROOT / "cluster/README.md").read_text("utf-8")
    assert len(blanks) > 5 and {blank for blank in blanks if f"`{blank}`" not in readme} == set()
