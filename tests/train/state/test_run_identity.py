"""A phase knows its frozen networks by content: their files may move, and other weights are refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xdub.config import Recipe, load_recipe
from xdub.errors import UserError
from xdub.model.codec import LinearCodec
from xdub.train.run import RunResult, train_phase
from xdub.train.state.run_identity import difference, network_digest


def quiet(progress) -> None:
    """Discard the progress."""


def train(recipe: Recipe, data: Path, out: Path) -> RunResult:
    return train_phase("generator", recipe, data, out, resume=True, local=True, progress=quiet)


def test_a_run_continues_after_its_weights_moved_and_refuses_other_weights(
    small, clips: Path, tmp_path: Path
) -> None:
    codec = Path(str(small().codec.path))
    moved, other = tmp_path / "moved.safetensors", tmp_path / "other.safetensors"
    moved.write_bytes(codec.read_bytes())
    network = LinearCodec.load(codec)
    LinearCodec(
        network.first, network.rest, 2 * network.std_first, 2 * network.std_rest, torch.zeros(3)
    ).save(other)
    train(small("train.steps=2"), clips, tmp_path / "run")
    with pytest.raises(UserError, match="was written with another codec network") as error:
        train(small("train.steps=4", f"codec.path={other}"), clips, tmp_path / "run")
    assert "\n" not in str(error.value)
    result = train(small("train.steps=4", f"codec.path={moved}"), clips, tmp_path / "run")
    assert (result.status, result.step) == ("finished", 4)


def facts(recipe: Recipe, networks: dict[str, str]) -> dict:
    sections = recipe.to_dict()
    network = network_digest(sections, "generator", paths=not networks)
    return {"phase": "generator", "recipe": sections, "network": network, "networks": networks}


def test_facts_of_an_earlier_version_are_compared_by_path(small, tmp_path: Path) -> None:
    before, now = facts(small(), {}), facts(small(), {"codec": "a" * 64})
    del before["networks"]
    # A key that the earlier version did not have gets its default.
    del before["recipe"]["weights"]
    assert difference(before, now) is None
    elsewhere = facts(small(f"codec.path={tmp_path}/x"), {"codec": "a" * 64})
    assert "network=" in str(difference(before, elsewhere))


def test_facts_with_digests_ignore_paths_and_name_the_network_that_differs(small, tmp_path: Path) -> None:
    before = facts(small(), {"codec": "a" * 64, "sync": "b" * 64})
    moved = facts(small(f"codec.path={tmp_path}/x"), {"codec": "a" * 64, "sync": "b" * 64})
    assert difference(before, moved) is None
    other = facts(small(), {"codec": "a" * 64, "sync": "c" * 64})
    assert "another sync network" in str(difference(before, other))
    wider = facts(small("model.hidden_size=64"), {"codec": "a" * 64})
    assert "network=" in str(difference(before, wider))


def test_the_adapter_of_a_tuned_phase_is_a_part_of_its_network() -> None:
    def digest(*settings: str) -> str:
        return network_digest(load_recipe("mini-wan", settings).to_dict(), "editor", paths=False)

    changes = ["lora.rank=2", "lora.alpha=1", "lora.targets=[ffn.0]", "train.tune=all"]
    assert len({digest(), *map(digest, changes)}) == 1 + len(changes)
    # The section describes the experts alone where the editor trains all weights.
    assert digest("train.tune=all", "lora.rank=2") == digest("train.tune=all")


def test_a_run_continues_on_its_own_grid_of_windows_only() -> None:
    recorded, grid = {"phase": "generator"}, {"phase": "generator", "window_stride": 8}
    recipe = {"network": None, "recipe": load_recipe("tiny").to_dict(), "networks": {}}
    reason = difference(recorded | recipe, grid | recipe)
    assert reason is not None and "resume with the same train.window_stride" in reason
    assert difference(recorded | recipe, recorded | recipe | {"window_stride": None}) is None
