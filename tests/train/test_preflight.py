"""What a phase asks for before it starts."""

from __future__ import annotations

import pytest

from xdub.config import PHASES, load_recipe
from xdub.errors import UserError
from xdub.train.preflight import check_paths

USED_BY = {"sync": ("syncnet", "lip"), "identity": ("arcface", "texture"), "features": ("clip", "texture")}


@pytest.mark.parametrize("name", USED_BY)
@pytest.mark.parametrize("path", [None, "/none/weights"])
def test_a_network_of_a_loss_is_asked_for_by_the_phase_that_has_the_loss_alone(
    name: str, path: str | None
) -> None:
    kind, its_phase = USED_BY[name]
    settings = [f"perception.{name}={kind}", *([f"perception.{name}_path={path}"] if path else [])]
    recipe = load_recipe("tiny", settings)
    for phase in PHASES:
        if phase == its_phase:
            with pytest.raises(UserError, match=f"perception.{name}_path"):
                check_paths(recipe, phase)
        else:
            check_paths(recipe, phase)


@pytest.mark.parametrize(("setting", "key"), [("codec.kind=wan", "codec"), ("audio.kind=whisper", "audio")])
def test_codec_and_audio_encoder_are_asked_for_by_every_phase(setting: str, key: str) -> None:
    for phase in PHASES:
        with pytest.raises(UserError, match=f"--set {key}.path=FOLDER"):
            check_paths(load_recipe("tiny", [setting, *_sizes(key)]), phase)


def _sizes(key: str) -> list[str]:
    return ["codec.channels=16"] if key == "codec" else ["audio.dim=1280"]
