"""The backbone: each condition reaches the outputs that it should, and no others."""

from __future__ import annotations

import pytest
import torch

from xdub.geometry import CodecGeometry
from xdub.model.dit import DiTConfig, VideoDiT

STARTS = torch.tensor([0, 2, 10])


def build(masked=False, seed=0, **changes) -> VideoDiT:
    torch.manual_seed(seed)
    base = dict(
        geometry=CodecGeometry(5, time=4, space=8),
        masked_input=masked,
        audio_dim=7,
        linear_skip=True,
        hidden_size=32,
        num_heads=2,
        num_layers=2,
    )
    model = VideoDiT(DiTConfig(**{**base, **changes}), torch.linspace(1.0, 0.2, 5)).eval()
    for parameter in model.parameters():  # zero-initialised layers would hide the layers before them
        parameter.data += 0.05 * torch.randn_like(parameter)
    return model


def inputs(reference_frames=3, batch=2):
    generator = torch.Generator().manual_seed(1)
    draw = lambda *shape: torch.randn(*shape, generator=generator)  # noqa: E731
    return dict(
        z_t=draw(batch, 5, 3, 4, 6),
        z_ref=draw(batch, 5, reference_frames, 4, 6),
        t=torch.tensor([0.3, 0.8])[:batch],
        audio=draw(batch, 26, 7),
        starts=STARTS,
    )


@pytest.mark.parametrize("order", ["target_first", "reference_first"])
@pytest.mark.parametrize(("masked", "reference_frames"), [(False, 3), (True, 1)])
def test_output_has_the_shape_of_the_target(masked, reference_frames, order):
    kwargs = inputs(reference_frames)
    if masked:
        kwargs["z_mask"] = torch.randn(2, 5, 3, 4, 6)
    assert build(masked, order=order)(**kwargs).shape == (2, 5, 3, 4, 6)


def test_token_order_does_not_change_the_result():
    first, second = build(order="target_first"), build(order="reference_first")
    second.load_state_dict(first.state_dict())
    torch.testing.assert_close(first(**inputs()), second(**inputs()), atol=1e-5, rtol=1e-4)


def test_audio_attention_of_a_latent_frame_reads_its_own_window_only():
    """With 3D attention set to zero, audio row 25 (in the last window only) reaches the last latent frame alone."""
    model = build()
    for block in model.blocks:
        block.attention_3d.out.weight.data.zero_()
    kwargs = inputs()
    before = model(**kwargs)
    kwargs["audio"] = kwargs["audio"].clone()
    kwargs["audio"][:, 25] += 1.0
    changed = (model(**kwargs) - before).abs().amax((0, 1, 3, 4))
    assert changed[2] > 1e-5
    assert changed[0] == 0


def test_disabled_audio_has_no_influence_at_all():
    model, kwargs = build(), inputs()
    off = torch.tensor([False, False])
    other = {**kwargs, "audio": torch.randn(2, 26, 7)}
    assert torch.equal(model(**kwargs, audio_enabled=off), model(**other, audio_enabled=off))
    assert not torch.equal(model(**kwargs), model(**other))


def test_timestep_of_motion_frames_and_references_is_zero():
    """A change of t reaches motion frames through other frames only, so without attention it has no effect on them."""
    model = build(linear_skip=False)
    for block in model.blocks:
        block.attention_3d.out.weight.data.zero_()
        block.attention_3d.out.bias.data.zero_()
    kwargs = inputs()
    one = model(**{**kwargs, "t": torch.tensor([0.2, 0.2])}, motion_frames=torch.tensor([2, 0]))
    two = model(**{**kwargs, "t": torch.tensor([0.9, 0.9])}, motion_frames=torch.tensor([2, 0]))
    assert torch.equal(one[0, :, :2], two[0, :, :2])
    assert not torch.allclose(one[0, :, 2:], two[0, :, 2:])
    assert not torch.allclose(one[1, :, :2], two[1, :, :2])


def test_samples_in_a_batch_do_not_affect_each_other():
    model, kwargs = build(), inputs()
    alone = model(**{**kwargs, **{key: kwargs[key][:1] for key in ("z_t", "z_ref", "t", "audio")}})
    torch.testing.assert_close(model(**kwargs)[:1], alone, atol=1e-5, rtol=1e-4)


def test_an_untrained_model_returns_the_best_linear_estimate():
    """For Gaussian latents of the codec's variance, the untrained model's error is the theoretical minimum."""
    torch.manual_seed(0)
    std = torch.tensor([1.0, 0.3, 0.1, 0.05, 0.01])
    config = DiTConfig(
        geometry=CodecGeometry(5, time=4, space=8),
        masked_input=False,
        audio_dim=7,
        linear_skip=True,
        hidden_size=32,
        num_heads=2,
        num_layers=1,
    )
    model = VideoDiT(config, std).eval()
    z0, eps = torch.randn(64, 5, 3, 4, 6) * std[None, :, None, None, None], torch.randn(64, 5, 3, 4, 6)
    for t in (0.05, 0.5, 0.95):
        z_t = (1 - t) * z0 + t * eps
        v_hat = model(z_t, torch.full((64,), t), z0, torch.zeros(64, 26, 7), STARTS)
        error = (v_hat - (eps - z0)).square().mean((0, 2, 3, 4))
        expected = std**2 / ((1 - t) ** 2 * std**2 + t**2)
        torch.testing.assert_close(error, expected, rtol=0.06, atol=1e-6)


def test_every_parameter_receives_a_gradient():
    model = build(masked=True).train()
    model(**inputs(1), z_mask=torch.randn(2, 5, 3, 4, 6)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_preconditioning_keeps_its_precision_in_a_bf16_model():
    model = build().bfloat16()
    assert model.precondition.std.dtype == torch.float32
    assert torch.isfinite(model(**inputs())).all()


def test_an_error_names_the_wrong_input():
    with pytest.raises(ValueError, match="z_mask"):
        build(masked=True)(**inputs(1))
    with pytest.raises(ValueError, match="3x6 is not divisible by the patch 2x2"):
        build()(**{**inputs(), "z_t": torch.randn(2, 5, 3, 3, 6)})
    with pytest.raises(ValueError, match="hidden_size=30"):
        build(hidden_size=30, num_heads=4)
