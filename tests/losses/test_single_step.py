"""Single-step estimate (Eq. 11), slices of a window, and identity loss (Eq. 13)."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.config import CodecConfig
from xdub.diffusion.flow_matching import velocity
from xdub.losses.identity import cosine_to_reference
from xdub.losses.single_step import SingleStep, decode_slices, single_step_latents, single_step_video
from xdub.model.codec import LinearCodec, load_codec
from xdub_kernels import add_noise


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture(scope="module")
def codec() -> LinearCodec:
    loaded = load_codec(CodecConfig(kind="linear", channels=48))
    assert isinstance(loaded, LinearCodec)
    return loaded


@settings(deadline=None, max_examples=30)
@given(t=st.floats(0.01, 0.99))
def test_below_the_clamp_the_estimate_is_the_usual_one(t):
    z0, eps, v_hat = (draw(1, 2, 3, 2, 2, seed=s) for s in range(3))
    times = torch.tensor([t])
    usual = add_noise(z0, eps, times, motion_frames=0) - t * v_hat
    estimate = single_step_latents(z0, eps, v_hat, times, t_thres=0.6, motion_latents=0)
    if t <= 0.6:
        torch.testing.assert_close(estimate, usual, atol=1e-5, rtol=1e-5)
    else:
        # The error of v_hat moves the picture no further than at t_thres.
        torch.testing.assert_close(estimate - z0, (usual - z0) * (0.6 / t), atol=1e-5, rtol=1e-4)


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 1000),
    motion=st.lists(st.integers(0, 4), min_size=2, max_size=2),
    starts=st.lists(st.integers(0, 3), min_size=2, max_size=2),
    junk=st.sampled_from([0.0, -1e30, float("inf"), float("nan")]),
)
def test_exact_velocity_on_trained_latents_gives_the_decoded_truth_whatever_the_motion_latents_hold(
    seed, motion, starts, junk, codec
):
    z0, eps = (draw(2, 48, 7, 1, 2, seed=seed + i) for i in range(2))
    v_hat = velocity(z0, eps)
    for i, count in enumerate(motion):
        v_hat[i, :, :count] = junk
    v_hat.requires_grad_()
    estimate = single_step_video(
        codec, z0, eps, v_hat, torch.tensor([0.3, 0.9]), starts=torch.tensor(starts),
        motion_latents=torch.tensor(motion), t_thres=0.6, decode_latents=4,
    )  # fmt: skip
    truth, first = codec.decode(z0), [4 * start for start in starts]
    assert estimate.first.tolist() == first
    for i, frame in enumerate(first):
        torch.testing.assert_close(estimate.video[i], truth[i, :, frame : frame + 13])
    estimate.video.square().sum().backward()
    for i, (count, start) in enumerate(zip(motion, starts, strict=True)):
        reached = v_hat.grad[i].abs().sum((0, 2, 3)) > 0
        assert reached.tolist() == [max(count, start) <= latent < start + 4 for latent in range(7)]


def test_a_slice_is_the_last_thirteen_frames_of_four_latents_and_ends_with_the_window(codec):
    z = draw(3, 48, 7, 1, 1, seed=0)
    whole = codec.decode(z)
    video = decode_slices(codec, z, torch.tensor([0, 1, 3]), 4)
    for i, first in enumerate((0, 4, 12)):
        torch.testing.assert_close(video[i], whole[i, :, first : first + 13])
    assert whole.shape[2] == 12 + 13
    # A window shorter than the slice is decoded whole.
    assert decode_slices(codec, z[:, :, :2], torch.tensor([0, 0, 0]), 4).shape[2] == 5


def test_rows_of_a_sequence_follow_the_slice():
    estimate = SingleStep(video=torch.zeros(2, 3, 13, 1, 1), first=torch.tensor([0, 12]))
    frames = torch.arange(25).expand(2, 25)
    assert estimate.rows(frames, per_frame=1).tolist() == [list(range(13)), list(range(12, 25))]
    audio = torch.arange(-4, 54)[None, :, None].expand(2, 58, 3)
    rows = estimate.rows(audio, per_frame=2, margin=4)
    assert rows.shape == (2, 34, 3)
    assert rows[:, 4, 0].tolist() == [0, 24]
    assert rows[:, -1, 0].tolist() == [29, 53]


def test_identity_loss_is_zero_for_the_reference_and_its_gradient_leads_to_the_reference():
    reference = draw(2, 3, 5, 4, 4, seed=0)
    embed = lambda frames: frames.flatten(1)  # noqa: E731
    assert (1 - cosine_to_reference(embed, reference, reference)).abs().max() < 1e-6
    video = draw(2, 3, 5, 4, 4, seed=1).requires_grad_()
    loss = 1 - cosine_to_reference(embed, video, reference).mean()
    loss.backward()
    with torch.no_grad():
        assert 1 - cosine_to_reference(embed, video - 10 * video.grad, reference).mean() < loss
