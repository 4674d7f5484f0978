"""Folders of the published editors as they are released, with small random networks."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.config.network_sections import HUBERT_STATES
from xdub.miniature.sizes import Sizes
from xdub.miniature.speech import write_hubert, write_joined
from xdub.model.release_testing import write_editor, write_null_prompt, write_vae

SIZES = Sizes()


@pytest.fixture(scope="session")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Name of a published editor -> NAME:DIR; both editors of TBDub share a folder."""
    xdub, tbdub = (tmp_path_factory.mktemp(name) for name in ("xdub", "tbdub"))
    write_editor(xdub / "X-Dub_model.safetensors", audio_dim=sum(SIZES.joined))
    write_joined(xdub, SIZES)
    for seed, name in enumerate(("teacher", "student")):
        dim = SIZES.hubert * len(HUBERT_STATES)
        write_editor(tbdub / f"tbdub_{name}.safetensors", audio_dim=dim, seed=seed)
    write_hubert(tbdub / "hubert-large-ll60k", SIZES)
    for folder in (xdub, tbdub):
        write_vae(folder / "Wan2.2_VAE.safetensors", newer=True)
        write_null_prompt(folder / "null_prompt_emb.pt")
    return {
        "xdub-public": f"xdub-public:{xdub}",
        "tbdub-teacher": f"tbdub-teacher:{tbdub}",
        "tbdub-student": f"tbdub-student:{tbdub}",
    }


@pytest.fixture()
def settings_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Folder of an untouched user's settings; nothing is accepted by the environment."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "settings"))
    monkeypatch.delenv("XDUB_ACCEPT_LICENCE", raising=False)
    return tmp_path / "settings" / "xdub"


@pytest.fixture()
def accepted(settings_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Accept all licences for one test."""
    monkeypatch.setenv("XDUB_ACCEPT_LICENCE", "xdub-public,tbdub-teacher, tbdub-student")
