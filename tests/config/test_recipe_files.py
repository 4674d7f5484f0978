"""A recipe file may change another recipe that its key ``base`` names."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from xdub.config import base_files, load_recipe, recipe_from_dict
from xdub.errors import UserError


def test_a_file_changes_single_keys_of_its_base(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: tiny\nname: mine\nphases: {lip: {steps: 7}}\nlora: {targets: [q]}\n")
    recipe, base = load_recipe(file), load_recipe("tiny")
    assert recipe.name == "mine" and recipe.for_phase("lip").steps == 7
    # Keys beside the changed ones stay, and a list is replaced.
    assert recipe.for_phase("lip").lr == base.for_phase("lip").lr
    assert recipe.lora.targets == ("q",) and recipe.lora.rank == base.lora.rank
    assert recipe.phase("editor") == base.phase("editor")


def test_a_base_is_found_beside_its_file_and_may_have_a_base(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "b.yaml").write_text("base: ../a.yaml\nseed: 5\n")
    (tmp_path / "a.yaml").write_text("base: tiny\nname: a\nseed: 4\n")
    monkeypatch.chdir("/")
    recipe = load_recipe(tmp_path / "sub" / "b.yaml", ["train.lr=0.5"])
    assert (recipe.name, recipe.seed, recipe.for_phase("lip").lr) == ("a", 5, 0.5)
    assert [path.resolve() for path in base_files(tmp_path / "sub" / "b.yaml")] == [tmp_path / "a.yaml"]


def test_a_written_recipe_is_complete_and_has_no_base(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: tiny\nname: mine\n")
    recipe = load_recipe(file)
    assert "base" not in recipe.to_dict() and recipe_from_dict(recipe.to_dict()) == recipe
    assert recipe_from_dict(yaml.safe_load(recipe.to_yaml())) == recipe


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: mine.yaml", "mine.yaml: the recipe is its own base"),
        ("base: other.yaml", "mine.yaml: the recipe is its own base"),
        ("base: gone.yaml", "mine.yaml: base: no recipe '.*gone.yaml': give a YAML file or one of: .*tiny"),
        ("base: 7", "mine.yaml: base=7 is not the name"),
        ("base: [tiny]", "is not the name of a recipe"),
        ("base: tiny\nphasess: {}", "unknown recipe key phasess .did you mean phases"),
        ("base: tiny\ncodec: {weights: w}", "unknown recipe key codec.weights"),
    ],
)
def test_a_wrong_base_is_one_clear_line(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    (tmp_path / "other.yaml").write_text("base: mine.yaml")
    with pytest.raises(UserError, match=words) as error:
        load_recipe(tmp_path / "mine.yaml")
    assert "\n" not in str(error.value)


def test_a_base_cannot_be_set_on_the_command_line() -> None:
    with pytest.raises(UserError, match="base is a key of recipe files; use --recipe small"):
        load_recipe("tiny", ["base=small"])


def test_an_empty_value_removes_a_section_of_the_base(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("base: xdub-1b\nperception: \n")
    assert load_recipe("xdub-1b").perception.identity == "arcface"
    assert load_recipe(file).perception.identity == "mobilefacenet"
    file.write_text("base: xdub-1b\nphases: {texture: }\n")
    assert load_recipe(file).phase_names == ("generator", "editor", "lip")
    file.write_text("base: xdub-1b\nphases: {editor: }\n")
    with pytest.raises(UserError, match="phases.editor is missing from the recipe"):
        load_recipe(file)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("base: tiny\ntrain: [1, 2]", r"^train=\[1, 2\] is not a section"),
        ("base: tiny\nphases: 3", "^phases=3 is not a section"),
        ("name: " + "[" * 3000 + "]" * 3000, "is not valid YAML"),
    ],
)
def test_a_wrong_section_is_blamed_on_the_file_even_with_an_override(
    tmp_path: Path, text: str, words: str
) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(UserError, match=words):
        load_recipe(tmp_path / "mine.yaml", ["train.workers=2"])


def test_a_path_of_networks_may_begin_with_the_home_folder(monkeypatch) -> None:
    monkeypatch.setenv("HOME", "/home/someone")
    recipe = load_recipe("mini", ["weights=~/w", "codec.path=~/vae", "perception.sync_path=a~b"])
    assert (recipe.weights, recipe.codec.path) == ("/home/someone/w", "/home/someone/vae")
    assert recipe.perception.sync_path == "a~b"
