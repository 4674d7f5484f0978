"""What the documentation says about the code is read off the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from xdub.cli import app
from xdub.config import load_recipe, shipped_recipes

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text("utf-8")
DOCUMENTS = sorted(
    [
        *ROOT.glob("*.md"),
        *(ROOT / "docs").rglob("*.md"),
        *ROOT.glob("kernels/*.md"),
        *ROOT.glob("cluster/*.md"),
    ]
)


@pytest.mark.parametrize("name", shipped_recipes())
def test_the_readme_has_the_numbers_of_every_recipe(name):
    recipe = load_recipe(name)
    (row,) = re.findall(rf"^\| `{name}` \|.*$", README, re.M)
    assert f"{recipe.video.size} px" in row
    assert f"{recipe.model.num_layers} blocks x {recipe.model.hidden_size}" in row
    assert ("Wan VAE" in row, "Whisper" in row) == (
        recipe.codec.kind == "wan",
        recipe.audio.kind == "whisper",
    )
    assert f"{load_recipe('tiny').video.size} px, on two CPU cores" in README


def test_every_verb_that_the_readme_names_exists():
    verbs = {c.name or c.callback.__name__ for c in app.registered_commands if c.callback}
    groups = {group.name for group in app.registered_groups}
    for verb in re.findall(
        r"\bxdub ([a-z]+)\b", "\n".join(re.findall(r"`xdub [a-z ]+`|^\S*xdub .+$", README, re.M))
    ):
        assert verb in verbs | groups, verb


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_pictures_inside_the_repository_exist(document):
    prose = re.sub(r"^```.*?^```$", "", document.read_text("utf-8"), flags=re.M | re.S)
    for target in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        if not target.startswith(("http://", "https://")):
            assert (document.parent / target).exists(), f"{document.name} points to {target}"


def test_files_that_the_readme_names_exist():
    for name in re.findall(r"`((?:xdub|docs|kernels|tests|ray_jobs)/[\w./-]+)`", README):
        assert (ROOT / name).exists(), name
    for name in re.findall(r"`([a-z_]+/[a-z_]*(?:\.py)?)`", README):
        assert (ROOT / "xdub" / name).exists() or (ROOT / name).exists(), name
