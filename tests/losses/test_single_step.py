"""Single-step estimate (Eq. 11) and identity loss (Eq. 13)."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.losses.identity import cosine_to_reference
from xdub.losses.single_step import single_step_latents
from xdub_kernels import add_noise


def draw(*shape, seed):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=30)
@given(t=st.floats(0.01, 0.99))
def test_below_the_clamp_the_estimate_is_the_usual_one(t):
    z0, eps, v_hat = (draw(1, 2, 3, 2, 2, seed=s) for s in range(3))
    times = torch.tensor([t])
    usual = add_noise(z0, eps, times, motion_frames=0) - t * v_hat
    estimate = single_step_latents(z0, eps, v_hat, times, t_thres=0.6)
    if t <= 0.6:
        torch.testing.assert_close(estimate, usual, atol=1e-5, rtol=1e-5)
    else:
        # The error of v_hat moves the picture no further than at t_thres.
        torch.testing.assert_close(estimate - z0, (usual - z0) * (0.6 / t), atol=1e-5, rtol=1e-4)


def test_identity_loss_is_zero_for_the_reference_and_its_gradient_leads_to_the_reference():
    reference = draw(2, 3, 5, 4, 4, seed=0)
    embed = lambda frames: frames.flatten(1)  # noqa: E731
    assert (1 - cosine_to_reference(embed, reference, reference)).abs().max() < 1e-6
    video = draw(2, 3, 5, 4, 4, seed=1).requires_grad_()
    loss = 1 - cosine_to_reference(embed, video, reference).mean()
    loss.backward()
    with torch.no_grad():
        assert 1 - cosine_to_reference(embed, video - 10 * video.grad, reference).mean() < loss
