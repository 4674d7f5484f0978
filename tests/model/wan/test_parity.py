"""A plain Wan against diffusers' `WanTransformer3DModel`, which serves as a reference only."""

from __future__ import annotations

import copy

import pytest
import torch
from diffusers import WanTransformer3DModel

from xdub.geometry import CodecGeometry
from xdub.model.prompt import Prompt
from xdub.model.wan.config import WanConfig
from xdub.model.wan.network import WanDiT
from xdub.perception.open_models.wan_names import diffusers_name, original_name

SMALL = dict(
    heads=2,
    head_dim=24,
    channels=4,
    layers=2,
    ffn=100,
    text=20,
    patch=(1, 2, 2),
    freq=256,
    eps=1e-6,
    normed=True,
)
CASES = {
    "small": {},
    "one head of 32, three layers": dict(heads=1, head_dim=32, layers=3),
    "48 channels": dict(channels=48, head_dim=12, heads=4, freq=64),
    "oblong patches": dict(patch=(1, 1, 2), eps=1e-5),
    "no norm before the prompt, odd widths": dict(normed=False, freq=33, ffn=1, layers=1),
}


def pair(**changes) -> tuple[WanTransformer3DModel, WanDiT]:
    """Build both networks with equal weights, none of which is zero or one."""
    c = {**SMALL, **changes}
    torch.manual_seed(0)
    reference = WanTransformer3DModel(
        patch_size=c["patch"],
        num_attention_heads=c["heads"],
        attention_head_dim=c["head_dim"],
        in_channels=c["channels"],
        out_channels=c["channels"],
        text_dim=c["text"],
        freq_dim=c["freq"],
        ffn_dim=c["ffn"],
        num_layers=c["layers"],
        eps=c["eps"],
        cross_attn_norm=c["normed"],
    )
    for parameter in reference.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    model = WanDiT(
        WanConfig(
            kind="wan",
            hidden_size=c["heads"] * c["head_dim"],
            num_heads=c["heads"],
            num_layers=c["layers"],
            ffn_dim=c["ffn"],
            text_dim=c["text"],
            patch=c["patch"],
            freq_dim=c["freq"],
            eps=c["eps"],
            cross_attn_norm=c["normed"],
            geometry=CodecGeometry(c["channels"], time=4, space=8),
        )
    )
    model.load_state_dict({original_name(name): value for name, value in reference.state_dict().items()})
    return reference.eval(), model.eval()


def times(kind: str, patch: tuple[int, int, int]) -> torch.Tensor:
    """Return times of two samples with three frames of 4 x 6 latents."""
    per_frame = (4 // patch[1]) * (6 // patch[2])
    shape = {"scalar": (2,), "per frame": (2, 3), "per token": (2, 3 * per_frame)}[kind]
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def expanded(t: torch.Tensor, patch: tuple[int, int, int]) -> torch.Tensor:
    """Return the reference's argument: [B], or one step a token."""
    per_frame = (4 // patch[1]) * (6 // patch[2])
    return 1000 * (t.repeat_interleave(per_frame, 1) if t.shape == (2, 3) else t)


@pytest.mark.parametrize("kind", ["scalar", "per frame", "per token"])
@pytest.mark.parametrize("case", CASES)
def test_output_and_gradients_are_those_of_diffusers(case, kind):
    reference, model = pair(**CASES[case])
    patch, channels = model.cfg.patch, model.geometry.channels
    z, text = torch.randn(2, channels, 3, 4, 6), torch.randn(2, 7, 20)
    t = times(kind, patch)
    expected = reference(z, expanded(t, patch), text).sample
    velocity = model.velocity_from_text(z, t, text)
    assert (velocity - expected).norm() <= 1e-5 * expected.norm()

    weight = torch.randn_like(expected)
    exact = torch.autograd.grad((expected * weight).sum(), list(reference.parameters()))
    own = dict(
        zip(
            dict(model.named_parameters()),
            torch.autograd.grad((velocity * weight).sum(), list(model.parameters())),
            strict=True,
        )
    )
    assert {diffusers_name(name) for name in own} == dict(reference.named_parameters()).keys()
    for (name, _), gradient in zip(reference.named_parameters(), exact, strict=True):
        assert (own[original_name(name)] - gradient).norm() <= 1e-5 * gradient.norm() + 1e-7, name


@pytest.mark.parametrize("case", CASES)
def test_bf16_differs_from_fp32_by_at_most_twice_the_references_own_error(case):
    reference, model = pair(**CASES[case])
    z, text, t = (
        torch.randn(2, model.geometry.channels, 3, 4, 6),
        torch.randn(2, 7, 20),
        torch.tensor([0.2, 0.9]),
    )
    exact = reference(z, 1000 * t, text).sample
    half = copy.deepcopy(reference).to(torch.bfloat16)
    error = (half(z.bfloat16(), 1000 * t, text.bfloat16()).sample.float() - exact).norm()
    assert (model.to(torch.bfloat16).velocity_from_text(z, t, text) - exact).norm() <= 2 * error


@pytest.mark.parametrize("rows", [1, 3, 20])
def test_a_prompt_counts_its_zero_rows_without_holding_them(rows):
    _, model = pair()
    z, t, text = torch.randn(2, 4, 3, 4, 6), torch.tensor([0.2, 0.9]), torch.randn(rows, 20)
    model.prompt = Prompt(rows=text, padding=40 - rows)
    padded = model.prompt.padded()[None].expand(2, -1, -1)
    torch.testing.assert_close(
        model.velocity_from_text(z, t), model.velocity_from_text(z, t, padded), atol=2e-5, rtol=1e-4
    )


def test_one_number_is_the_time_of_all_samples():
    _, model = pair()
    z, text = torch.randn(2, 4, 3, 4, 6), torch.randn(2, 7, 20)
    expected = model.velocity_from_text(z, torch.tensor([0.25, 0.25]), text)
    for t in (0.25, torch.tensor(0.25), torch.tensor([0.25])):
        assert torch.equal(model.velocity_from_text(z, t, text), expected)


def test_norms_in_fp32_beside_bf16_layers_read_their_own_dtype():
    """diffusers writes such files, and a GPU has no layer norm whose input and weight differ in dtype."""
    _, model = pair()
    z, text = torch.randn(2, 4, 3, 4, 6), torch.randn(2, 7, 20)
    exact, dtypes = model.velocity_from_text(z, 0.5, text), set()
    for name, parameter in model.named_parameters():
        if "norm" not in name and "modulation" not in name and "time_embedding" not in name:
            parameter.data = parameter.data.bfloat16()
    for block in model.blocks:
        for norm in (block.norm3, block.cross_attn.norm_q, block.cross_attn.norm_k):
            norm.register_forward_pre_hook(lambda norm, x: dtypes.add((x[0].dtype, norm.weight.dtype)))
    assert (model.velocity_from_text(z, 0.5, text) - exact).norm() <= 0.02 * exact.norm()
    assert dtypes == {(torch.float32, torch.float32)}
