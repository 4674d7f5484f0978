"""A set of pairs continues after its networks have moved, and not with other networks."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from xdub.config import Recipe, load_recipe
from xdub.data.clip import SCHEMA_VERSION
from xdub.data.manifest import MANIFEST
from xdub.errors import UserError
from xdub.miniature.networks import write_arcface
from xdub.miniature.sizes import Sizes
from xdub.pairs.factory import recorded_origin
from xdub.pairs.importer import import_settings
from xdub.pairs.units import deciding_sections, located_sections


@pytest.fixture(autouse=True)
def embedders(tmp_path: Path) -> None:
    """Write an embedder a, its copy b, and another one c."""
    for name in ("a", "c"):
        write_arcface(tmp_path / f"{name}.pth", Sizes(arcface=(4, 4, 4, 4)))
    (tmp_path / "b.pth").write_bytes((tmp_path / "a.pth").read_bytes())


def with_embedder(path: Path) -> Recipe:
    return load_recipe("tiny", ["perception.identity=arcface", f"perception.identity_path={path}"])


def record(folder: Path, settings: dict) -> None:
    folder.mkdir(exist_ok=True)
    head = {"schema_version": SCHEMA_VERSION, "kind": "pairs", "recipe": settings}
    lists: dict = {"shards": [], "ids": [], "num_frames": [], "speakers": []}
    (folder / MANIFEST).write_text(json.dumps(head | lists))


def test_pairs_of_the_recipe_tiny_keep_the_ids_that_earlier_versions_gave_them() -> None:
    """A recipe field that an earlier version did not have changes no id while it has its default."""
    text = json.dumps(deciding_sections(load_recipe("tiny")), sort_keys=True)
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == "bd89d76874e2d031"


def test_generated_pairs_continue_after_a_move(tmp_path: Path) -> None:
    a, b, c = (with_embedder(tmp_path / f"{name}.pth") for name in "abc")
    out = tmp_path / "out"

    def origin(recipe: Recipe) -> dict:
        return recorded_origin(out, deciding_sections(recipe), located_sections(recipe))

    record(out, deciding_sections(a))
    assert origin(b) == deciding_sections(a)
    with pytest.raises(UserError, match="built with another networks"):
        origin(c)
    # An earlier version recorded paths.
    record(out, located_sections(a))
    assert origin(a) == located_sections(a)
    with pytest.raises(UserError, match="built with another perception"):
        origin(c)


@pytest.mark.parametrize("earlier", [False, True])
def test_imported_pairs_continue_after_a_move(tmp_path: Path, earlier: bool) -> None:
    a, b, c = (with_embedder(tmp_path / f"{name}.pth") for name in "abc")
    out = tmp_path / "out"
    settings = import_settings(out, a)
    assert settings is not None
    if earlier:
        del settings["networks"]
        settings["perception"] = a.to_dict()["perception"]
    record(out, settings)
    assert import_settings(out, a) is not None
    with pytest.raises(UserError, match="created with another perception"):
        import_settings(out, c)
    if not earlier:
        assert import_settings(out, b) is not None
