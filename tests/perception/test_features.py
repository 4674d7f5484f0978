"""Image features: deterministic, differentiable, and sensitive to texture and colour."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from xdub.config import PerceptionConfig
from xdub.errors import UserError
from xdub.perception.features import ClipFeatures, FaceFeatureNet, load_features


def picture(seed: int, size: int = 80) -> torch.Tensor:
    """Return a smooth random picture [1, 3, size, size] in [-1, 1]."""
    coarse = torch.rand(1, 3, 7, 7, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    return F.interpolate(coarse, (size, size), mode="bicubic", align_corners=False).clamp(-1, 1)


def similarity(a: torch.Tensor, b: torch.Tensor) -> float:
    net = FaceFeatureNet()
    return F.cosine_similarity(net(a), net(b)).item()


def test_features_are_unit_vectors_of_the_documented_length_for_any_picture_size():
    net = FaceFeatureNet()
    for size in (32, 80, 256):
        features = net(picture(0, size).expand(3, -1, -1, -1))
        assert features.shape == (3, net.dim)
        torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


def test_two_instances_agree_to_the_bit_and_nothing_is_trainable():
    assert torch.equal(FaceFeatureNet()(picture(0)), FaceFeatureNet()(picture(0)))
    assert not list(FaceFeatureNet().parameters())


def test_a_slightly_changed_picture_is_nearer_than_another_one():
    one, other = picture(1), picture(2)
    noisy = (one + 0.02 * torch.randn(one.shape, generator=torch.Generator().manual_seed(0))).clamp(-1, 1)
    assert similarity(one, noisy) > 0.97
    assert similarity(one, other) < 0.5


def test_blur_and_a_colour_cast_lower_the_similarity():
    one = picture(3)
    one = (one + 0.4 * torch.sign(torch.sin(torch.arange(80) * 1.3))).clamp(-1, 1)  # fine texture
    blurred = F.avg_pool2d(F.pad(one, (4, 4, 4, 4), mode="replicate"), 9, stride=1)
    cast = (one + torch.tensor([0.3, 0.0, -0.3])[:, None, None]).clamp(-1, 1)
    assert similarity(one, blurred) < 0.95
    assert similarity(one, cast) < 0.97


def test_gradients_reach_the_pixels_and_improve_the_match():
    net, target = FaceFeatureNet(), picture(4)
    start = (target + 0.3 * picture(5)).requires_grad_()

    def loss(x):
        return 1 - F.cosine_similarity(net(x), net(target)).mean()

    (gradient,) = torch.autograd.grad(loss(start), start)
    assert torch.isfinite(gradient).all()
    assert loss(start - 0.01 * gradient / gradient.abs().max()) < loss(start)


def test_a_constant_picture_has_finite_features_and_gradients():
    flat = torch.zeros(1, 3, 40, 40, requires_grad=True)
    FaceFeatureNet()(flat).sum().backward()
    assert torch.isfinite(flat.grad).all()


def test_wrong_shapes_are_named():
    with pytest.raises(ValueError, match="^frames must be"):
        FaceFeatureNet()(torch.zeros(3, 8, 8))


def test_the_recipe_chooses_the_network_and_clip_loads_from_a_folder(tmp_path):
    from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

    assert load_features(PerceptionConfig(features="tiny")).name == "fixed-filter-bank"
    with pytest.raises(UserError, match="features_path"):
        load_features(PerceptionConfig(features="clip"))
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=32, patch_size=16,
        projection_dim=8,
    )  # fmt: skip
    CLIPVisionModelWithProjection(config).save_pretrained(tmp_path)
    net = load_features(PerceptionConfig(features="clip", features_path=str(tmp_path)))
    assert isinstance(net, ClipFeatures)
    frames = picture(6).requires_grad_()
    features = net(frames)
    assert features.shape == (1, 8)
    features[0, 0].backward()
    assert frames.grad.abs().sum() > 0
