"""Weights inside the package."""

from __future__ import annotations

from xdub.config.shipped import shipped_weights


def test_shipped_weights_are_files_of_the_package() -> None:
    assert (shipped_weights() / "recipe.yaml").is_file()
    assert shipped_weights("editor.safetensors").is_file()
