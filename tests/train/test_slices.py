"""Pixel losses see any part of the window after the motion frames, and the same frames of all that they compare."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import torch

from xdub.config import load_recipe
from xdub.diffusion.flow_matching import velocity
from xdub.model.codec import load_codec
from xdub.train.phases import lip, texture
from xdub.train.phases.common import Noised, PhaseContext, draw_noise, draw_slices

SAMPLES, LATENTS = 400, 7


@pytest.fixture(scope="module")
def context() -> PhaseContext:
    recipe = load_recipe("tiny")
    return PhaseContext(phase=recipe.phase("lip"), seed=0, codec=load_codec(recipe.codec))


def batch_of(samples: int, latents: int = LATENTS) -> dict:
    generator = torch.Generator().manual_seed(0)
    frames = 4 * latents - 3
    z0, z_ref = (torch.randn(samples, 48, latents, 1, 1, generator=generator) for _ in range(2))
    return {
        "z0": z0,
        "z_ref": z_ref,
        "audio": torch.zeros(samples, 2 * frames + 8, 80),
        # The value of a sample of sound is its number, that of a landmark the number of its frame.
        "sound": torch.arange(640.0 * (frames + 50))[None].expand(samples, -1),
        "landmarks": torch.arange(float(frames))[None, :, None, None].expand(samples, -1, 68, 2),
        "face_mask": torch.zeros(samples, 1, latents, 1, 1),
        "lip_mask": torch.zeros(samples, 1, latents, 1, 1),
        "starts": torch.zeros(latents, dtype=torch.int64),
        "sample_id": [f"clip-{i}" for i in range(samples)],
        "epochs": torch.zeros(samples, dtype=torch.int64),
    }


def noised(batch: dict, motion: int) -> Noised:
    zeros = torch.zeros(len(batch["sample_id"]))
    return Noised(eps=batch["z0"], z_t=batch["z0"], t=zeros, motion_latents=zeros.long() + motion, coin=zeros)


@pytest.mark.parametrize(
    ("motion", "support"), [(0, [0, 1, 2, 3]), (1, [0, 1, 2, 3]), (2, [1, 2, 3]), (6, [3])]
)
def test_slices_begin_everywhere_from_the_last_motion_latent_to_the_end_of_the_window(
    motion, support, context
):
    batch = batch_of(SAMPLES)
    starts = Counter(draw_slices(batch, noised(batch, motion), context).tolist())
    assert sorted(starts) == support
    assert min(starts.values()) > 0.7 * SAMPLES / len(support)
    # The frames 4 s ... 4 s + 12 of all slices cover every frame that is not a motion frame.
    frames = {frame for start in starts for frame in range(4 * start, 4 * start + 13)}
    assert frames >= set(range(max(0, 4 * motion - 3), 25))


def test_a_slice_depends_on_seed_epoch_and_sample_alone(context):
    batch = batch_of(64)
    starts = draw_slices(batch, noised(batch, 0), context)
    backwards = {**batch, "sample_id": batch["sample_id"][::-1]}
    assert torch.equal(draw_slices(backwards, noised(batch, 0), context), starts.flip(0))
    later = {**batch, "epochs": batch["epochs"] + 1}
    assert not torch.equal(draw_slices(later, noised(batch, 0), context), starts)
    assert not torch.equal(draw_slices(batch, noised(batch, 0), replace(context, seed=1)), starts)


def test_a_window_as_short_as_the_slice_is_decoded_from_its_start(context):
    batch = batch_of(8, latents=3)
    assert not draw_slices(batch, noised(batch, 2), context).any()


class ExactModel(torch.nn.Module):
    """Return the exact velocity of a batch, and a wrong one on motion latents, as a trained model does."""

    def __init__(self, batch: dict, context: PhaseContext) -> None:
        super().__init__()
        self.batch, self.eps = batch, draw_noise(batch, context).eps

    def forward(self, *_: object, motion_frames: torch.Tensor, **__: object) -> torch.Tensor:
        v = velocity(self.batch["z0"], self.eps)
        for i, count in enumerate(motion_frames.tolist()):
            v[i, :, :count] = 100.0
        return v


def test_the_lip_loss_hears_the_frames_that_it_sees(context):
    batch, calls = batch_of(16), []

    class Sync:
        def sync_loss(self, frames, sound, landmarks):
            calls.append((frames, sound, landmarks))
            return torch.zeros(len(frames), 9)

    heard = replace(context, sync=Sync())
    lip.loss(ExactModel(batch, heard), batch, heard)
    starts = draw_slices(batch, draw_noise(batch, heard), heard)
    assert len(set(starts.tolist())) >= 3
    ((video, sound, landmarks),) = calls
    truth = context.codec.decode(batch["z0"])
    for i, start in enumerate(starts.tolist()):
        torch.testing.assert_close(video[i], truth[i, :, 4 * start : 4 * start + 13])
        assert sound[i].tolist() == list(range(4 * start * 640, (4 * start + 13 + 50) * 640))
        assert landmarks[i, :, 0, 0].tolist() == list(range(4 * start, 4 * start + 13))


def test_the_texture_losses_compare_the_same_frames_of_estimate_and_reference(context):
    batch, calls = batch_of(16), []

    def embed(frames):
        calls.append(frames.detach())
        return frames.flatten(1)

    phase = load_recipe("tiny", ["phases.texture.silent_prob=1.0"]).phase("texture")
    seeing = replace(context, phase=phase, identity=embed, features=embed)
    texture.loss(ExactModel(batch, seeing), batch, seeing)
    starts = draw_slices(batch, draw_noise(batch, seeing), seeing)
    for z, received in ((batch["z0"], calls[0]), (batch["z_ref"], calls[1])):
        frames, whole = received.unflatten(0, (16, 4)), context.codec.decode(z)
        for i, start in enumerate(starts.tolist()):
            expected = whole[i, :, 4 * start : 4 * start + 13 : 4].transpose(0, 1)
            torch.testing.assert_close(frames[i], expected)
