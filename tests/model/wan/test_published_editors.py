"""X-Dub's and TBDub's editors against a slow implementation of the published facts."""

from __future__ import annotations

import pytest
import torch

from tests.model.wan.slow_editor import SlowEditor
from xdub.geometry import CodecGeometry
from xdub.model.prompt import Prompt
from xdub.model.testing import small_wan
from xdub.model.wan.network import WanDiT
from xdub.speech_windows import speech_windows

GEOMETRY = CodecGeometry(channels=4, time=4, space=16)
FEATURES = {"X-Dub": 2 * 7, "TBDub": 4 * 5}


@pytest.fixture(params=FEATURES)
def editor(request) -> WanDiT:
    """A small editor none of whose parameters is zero or one."""
    torch.manual_seed(0)
    config = small_wan(
        GEOMETRY,
        speech="published",
        speech_width=128,
        audio_dim=FEATURES[request.param],
        round_timesteps=True,
    )
    model = WanDiT(config, Prompt(rows=torch.randn(1, 12), padding=511)).eval()
    for parameter in model.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def window_rows(features: torch.Tensor, first_frame: int, frames: int) -> torch.Tensor:
    """Cut the rows of a window as the data do: rows beyond the recording repeat its ends."""
    windows = speech_windows("published", GEOMETRY)
    first = windows.first_row(first_frame)
    rows = torch.arange(first, first + windows.count(frames)).clamp(0, len(features) - 1)
    return features[rows]


@pytest.mark.parametrize(("first_frame", "motion", "t"), [(0, 0, 0.9983), (3, 2, 0.31)])
def test_an_editor_computes_what_the_published_code_does(editor, first_frame, motion, t):
    z_t, z_ref = torch.randn(2, 1, 4, 3, 4, 6).unbind(0)
    features = torch.randn(20, editor.cfg.audio_dim)
    rows = window_rows(features, first_frame, GEOMETRY.frames(3))
    starts = torch.from_numpy(speech_windows("published", GEOMETRY).starts(3))
    prompt = torch.cat((editor.prompt.rows, torch.zeros(511, 12)))
    state = {
        name: value.detach().requires_grad_(value.is_floating_point())
        for name, value in editor.state_dict().items()
    }
    slow = SlowEditor(state, heads=2, projection_heads=2).velocity(
        z_t[0], z_ref[0], t, prompt, features, first_frame=first_frame, motion=motion
    )
    fast = editor(z_t, torch.tensor([t]), z_ref, rows[None], starts, motion_frames=motion)
    assert (fast[0] - slow).norm() < 1e-5 * slow.norm()

    weight = torch.randn_like(slow)
    names = [name for name, _ in editor.named_parameters()]
    expected = torch.autograd.grad((slow * weight).sum(), [state[name] for name in names])
    gradients = torch.autograd.grad((fast[0] * weight).sum(), list(editor.parameters()))
    largest = max(exact.norm() for exact in expected)
    for name, gradient, exact in zip(names, gradients, expected, strict=True):
        assert (gradient - exact).norm() <= 1e-4 * exact.norm() + 1e-6 * largest, name


def test_silence_is_features_of_zeros(editor):
    z_t, z_ref = torch.randn(2, 1, 4, 3, 4, 6).unbind(0)
    starts = torch.from_numpy(speech_windows("published", GEOMETRY).starts(3))
    rows = torch.randn(1, speech_windows("published", GEOMETRY).count(9), editor.cfg.audio_dim)
    t = torch.tensor([0.5])
    off = editor(z_t, t, z_ref, rows, starts, audio_enabled=torch.tensor([False]))
    assert torch.equal(off, editor(z_t, t, z_ref, torch.zeros_like(rows), starts))
    assert not torch.equal(off, editor(z_t, t, z_ref, rows, starts))


def test_prepared_conditions_lead_to_the_same_velocity(editor):
    z_t, z_ref = torch.randn(2, 2, 4, 3, 4, 6).unbind(0)
    starts = torch.from_numpy(speech_windows("published", GEOMETRY).starts(3))
    rows = torch.randn(2, speech_windows("published", GEOMETRY).count(9), editor.cfg.audio_dim)
    t = torch.tensor([0.5, 0.9])
    conditions = editor.conditions(z_ref, rows, starts)
    torch.testing.assert_close(editor.velocity(z_t, t, conditions), editor(z_t, t, z_ref, rows, starts))


def test_an_editors_norms_in_fp32_beside_bf16_layers_read_fp32(editor):
    z, features = torch.randn(1, 4, 3, 4, 6), torch.randn(20, editor.cfg.audio_dim)
    rows = window_rows(features, 0, GEOMETRY.frames(3))
    starts = torch.from_numpy(speech_windows("published", GEOMETRY).starts(3))
    exact, dtypes = editor(z, torch.tensor([0.5]), z, rows[None], starts), set()
    for name, parameter in editor.named_parameters():
        if "norm" not in name and "modulation" not in name and "time_embedding" not in name:
            parameter.data = parameter.data.bfloat16()
    for name, module in editor.named_modules():
        if "norm" in name and getattr(module, "weight", None) is not None:
            module.register_forward_pre_hook(lambda norm, x: dtypes.add((x[0].dtype, norm.weight.dtype)))
    assert (editor(z, torch.tensor([0.5]), z, rows[None], starts) - exact).norm() <= 0.05 * exact.norm()
    assert dtypes == {(torch.float32, torch.float32)}
