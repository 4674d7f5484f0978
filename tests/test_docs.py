"""Tests of the documentation: recipes, verbs, links and file names in it exist in the code."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from xdub.cli import app
from xdub.config import load_recipe, shipped_recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = sorted(
    path for folder in ("*.md", "docs/**/*.md", "kernels/*.md", "cluster/*.md") for path in ROOT.glob(folder)
)

RUN_FOLDERS = {"bundle/"}
"""Folders of a run, which are not in the repository."""


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_readme_states_the_sizes_of_every_recipe(name):
    recipe = load_recipe(name)
    (row,) = re.findall(rf"^\| `{name}` \|.*$", README, re.M)
    assert f"{recipe.video.size} px" in row
    assert f"{recipe.model.num_layers} blocks x {recipe.model.hidden_size}" in row
    assert ("Wan VAE" in row) == (recipe.codec.kind == "wan")
    assert ("Whisper" in row) == (recipe.audio.kind == "whisper")
    assert f"{load_recipe('tiny').video.size} px, on two CPU cores" in README


def test_every_verb_that_the_readme_names_exists():
    commands = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    groups = {group.name for group in app.registered_groups}
    text = "\n".join(re.findall(r"`xdub [a-z ]+`|^\S*xdub .+$", README, re.M))
    verbs = set(re.findall(r"\bxdub ([a-z]+)\b", text))
    assert len(verbs) > 3
    assert verbs <= commands | groups


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_inside_the_repository_exist(document):
    prose = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), f"{document.name} points to {target}"


def test_paths_that_the_documents_name_exist():
    paths = {
        (document.name, path)
        for document in DOCUMENTS
        for path in re.findall(
            r"`((?:xdub|docs|kernels|tests|ray_jobs)/[\w./-]+)`", document.read_text("utf-8")
        )
    }
    assert len(paths) > 30
    assert {(document, path) for document, path in paths if not (ROOT / path).exists()} == set()


def test_files_and_tests_that_the_architecture_names_exist():
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    layout, prose = (
        text.split("## Layout")[1].split("```")[1],
        re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S),
    )
    named = set(re.findall(r"`([\w.-]+(?:/[\w.-]+)*(?:/|\.py|\.yaml))`", prose))
    named |= set(re.findall(r"^ *([\w./]+(?:/|\.py)) ", layout, re.M))
    assert len(named) > 80
    roots = (ROOT, ROOT / "xdub", ROOT / "xdub/train")
    assert {path for path in named if not any((root / path).exists() for root in roots)} <= RUN_FOLDERS
    files = {path.name for path in (ROOT / "xdub").rglob("*.py")}
    assert set(re.findall(r"\b\w+\.py\b", layout)) <= files


def test_hours_and_memory_of_the_24_gb_recipes_are_those_of_the_result_file():
    text = (ROOT / "docs/open-weights.md").read_text("utf-8")
    result = json.loads((ROOT / "docs/results/memory_24gb.json").read_text("utf-8"))["recipes"]
    for name in (name for name in shipped_recipes() if name.endswith("-24gb")):
        phases = [part for part in result[name].values() if "steps" in part]
        training, dub = sum(part["hours"] for part in phases), result[name]["dubbing"]["hours"]
        largest = max(part["memory"]["total"] for part in phases) / 2**30
        costs, memory = re.findall(rf"^\| `{name}`(?:: [^|]*)? \|.*$", text, re.M)
        assert f"| {training:.0f} |" in costs
        assert f"| {dub:.0f} | {largest:.1f} |" in costs
        assert f"| {largest:.1f} (" in memory
