"""Real optimizer steps of every phase, and a loss that falls."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from xdub.config import expert_of
from xdub.data.latents import encode_batch
from xdub.data.samples import StreamSpec
from xdub.data.stream import LocalStream
from xdub.data.testing import FrameIndexAudio
from xdub.files.run_folder import PhaseFolder
from xdub.model.audio_encoder import load_audio_encoder
from xdub.model.codec import load_codec
from xdub.perception.features import FaceFeatureNet
from xdub.perception.syncnet.tiny import TinySyncNet
from xdub.train.context import LocalContext
from xdub.train.engine import Engine
from xdub.train.networks import build_model
from xdub.train.phases import phase_loss
from xdub.train.phases.common import PhaseContext
from xdub.train.state.export import write_export

TEXT = "model.text_tokens=3"
"""Override for three text tokens, because the softmax over one token is constant and its queries get no gradient."""


@pytest.fixture(scope="module")
def editor(small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write an export folder of an untrained editor as the base of the experts."""
    recipe, folder = small(TEXT), PhaseFolder(tmp_path_factory.mktemp("base"), "editor").export
    model = build_model(recipe, "editor", load_codec(recipe.codec), base=None, init_from=None)
    noise = torch.Generator().manual_seed(0)
    state = {
        name: value + 0.05 * torch.randn(value.shape, generator=noise)
        for name, value in model.state_dict().items()
    }
    write_export(folder, state, {"kind": "model"})
    return folder


def loss_context(recipe, phase: str) -> PhaseContext:
    """Return the phase's context with small random networks in place of those from files."""
    frozen = {"sync": TinySyncNet(), "identity": FaceFeatureNet(), "features": FaceFeatureNet()}
    frozen = {name: net.eval().requires_grad_(False) for name, net in frozen.items()}
    return PhaseContext(phase=recipe.phase(phase), seed=0, codec=load_codec(recipe.codec), **frozen)


def first_batch(recipe, phase: str, data: Path) -> dict:
    batch = next(iter(LocalStream(StreamSpec.from_recipe(recipe, phase, data))))
    return encode_batch(batch, load_codec(recipe.codec), load_audio_encoder(recipe.audio), "cpu")


@pytest.mark.parametrize("phase", ["generator", "editor", "lip", "texture"])
def test_a_step_changes_the_trained_weights_of_the_phase_and_no_others(
    phase, small, clips, pairs, editor
) -> None:
    recipe = small(
        "train.global_batch=4", "train.micro_batch=4", "train.warmup=0", "train.ema=0", "train.lr=1e-2",
        "train.weight_decay=0", "phases.texture.silent_prob=0.5", TEXT,
    )  # fmt: skip
    expert = expert_of(phase)
    base = str(editor) if expert else None
    model = build_model(recipe, phase, load_codec(recipe.codec), base=base, init_from=None)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all((expert is not None) == (f".{expert}." in name) for name in trained)
    engine = Engine.build(model, recipe.for_phase(phase), device=LocalContext().device, world_size=1)
    batch = first_batch(recipe, phase, clips if phase == "generator" else pairs)
    for _ in range(3):  # for a step or two, zero-initialised layers hide the layers before them
        terms = phase_loss(phase)(engine.model, batch, loss_context(recipe, phase))
        engine.backward(terms.total, last=True)
        engine.step()
    after = dict(model.named_parameters())
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed <= trained
    assert len(trained) >= 40 and trained == changed, f"not trained: {sorted(trained - changed)[:5]}"
    assert engine.grad_norm > 0
    added = {"lip": ["sync"], "texture": ["identity", "clip"]}.get(phase, [])
    assert list(terms.terms) == ["flow", *added]
    assert all(torch.isfinite(term.mean) for term in terms.terms.values())


def test_the_lip_loss_hears_the_wave_and_not_the_features_of_the_recipes_encoder(
    small, pairs, editor
) -> None:
    """Recipe `small` has Whisper features, and the network in the package."""
    recipe = small("audio.dim=2", "audio.kind=whisper", "audio.path=none", TEXT)
    model = build_model(recipe, "lip", load_codec(recipe.codec), base=None, init_from=None)
    raw = next(iter(LocalStream(StreamSpec.from_recipe(recipe, "lip", pairs))))
    batch = encode_batch(raw, load_codec(recipe.codec), FrameIndexAudio(), "cpu")
    terms = phase_loss("lip")(model, batch, loss_context(recipe, "lip"))
    assert batch["audio"].shape[2] == 2
    assert terms.terms["sync"].per_sample.isfinite().all()
    other = batch | {"sound": batch["sound"].flip(0)}
    assert (
        phase_loss("lip")(model, other, loss_context(recipe, "lip")).terms["sync"].mean
        != terms.terms["sync"].mean
    )


def test_the_loss_of_one_memorised_batch_falls(small, clips) -> None:
    recipe = small(
        "train.steps=40", "train.global_batch=4", "train.micro_batch=4", "train.lr=5e-3", "train.ema=0"
    )
    train = recipe.for_phase("generator")
    model = build_model(recipe, "generator", load_codec(recipe.codec), base=None, init_from=None)
    engine = Engine.build(model, train, device=LocalContext().device, world_size=1)
    batch, context = first_batch(recipe, "generator", clips), loss_context(recipe, "generator")
    losses = []
    for _ in range(train.steps):
        terms = phase_loss("generator")(engine.model, batch, context)
        engine.backward(terms.total, last=True)
        engine.step()
        losses.append(terms.total.item())
    assert losses[-1] < 0.6 * losses[0]


def test_an_error_names_the_missing_editor_of_an_expert(small, pairs, tmp_path: Path) -> None:
    from xdub.errors import UserError
    from xdub.train.run import train_phase

    with pytest.raises(UserError, match="editor/export has no weights"):
        train_phase("lip", small(), pairs, tmp_path / "run", local=True)
