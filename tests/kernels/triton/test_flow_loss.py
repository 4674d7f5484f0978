"""The one-pass loss and the noising kernel against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub_kernels import add_noise, weighted_flow_loss
from xdub_kernels.testing import assert_within_budget, flow_inputs, normal

SLACK = 1.5


def outcome(tensors, motion, impl, **weights):
    """Return loss, sums, numbers, and the gradients of v_hat, z0 and eps."""
    tensors = {name: x.detach().clone() for name, x in tensors.items()}
    for name in ("v_hat", "z0", "eps"):
        tensors[name].requires_grad_()
    loss, sums, numbers = weighted_flow_loss(
        **tensors, motion_frames=motion, per_sample=True, impl=impl, **weights
    )
    (3 * loss).backward()
    return [loss.detach(), sums, numbers, *(tensors[name].grad for name in ("v_hat", "z0", "eps"))]


def check(tensors, motion, slack=1.0, **weights):
    exact = {name: x.double() if x.dtype.is_floating_point else x for name, x in tensors.items()}
    want = outcome(exact, motion, "reference", **weights)
    got = outcome(tensors, motion, "triton", **weights)
    assert torch.equal(got[2], want[2])
    depth = tensors["v_hat"].numel()
    for one, other in zip(got[:2] + got[3:], want[:2] + want[3:], strict=True):
        assert_within_budget(one, other, depth=depth, slack=slack)


SHAPES = [(1, 1, 1, 1, 1), (2, 5, 7, 5, 3), (3, 16, 2, 13, 11), (1, 3, 5, 17, 31), (17, 2, 3, 2, 2)]


@pytest.mark.parametrize("shape", SHAPES)
def test_value_sums_and_gradients_equal_the_reference(shape, device, poisoned):
    tensors = flow_inputs(shape, device=device)
    motion = torch.arange(shape[0], device=device) % (shape[2] + 1)
    check(tensors, motion, face_weight=0.7, lip_weight=2.0)


def test_bfloat16_and_bool_masks_stay_within_their_budget(device, poisoned):
    tensors = flow_inputs((2, 5, 7, 5, 3), dtype=torch.bfloat16, device=device)
    check(tensors, 2, slack=SLACK)
    check(
        tensors | {"face_mask": tensors["face_mask"].bool(), "lip_mask": tensors["lip_mask"].bool()},
        0,
        slack=SLACK,
    )


@settings(max_examples=15, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 9), st.integers(1, 9)),
    st.data(),
)
def test_any_shape_and_any_motion_equal_the_reference(device, shape, data):
    motion = data.draw(st.lists(st.integers(0, shape[2]), min_size=shape[0], max_size=shape[0]))
    check(flow_inputs(shape, device=device, seed=sum(shape)), torch.tensor(motion, device=device))


def test_a_narrower_prediction_keeps_its_dtype(device):
    tensors = flow_inputs((1, 3, 3, 5, 5), device=device)
    tensors["v_hat"] = tensors["v_hat"].bfloat16().requires_grad_()
    loss = weighted_flow_loss(**tensors, motion_frames=1, impl="triton")
    loss.backward()
    assert loss.dtype == torch.float32 and tensors["v_hat"].grad.dtype == torch.bfloat16
    reference = weighted_flow_loss(**tensors, motion_frames=1, impl="reference")
    torch.testing.assert_close(loss, reference)


def test_motion_frames_do_not_count_even_as_nan(device):
    tensors = flow_inputs((2, 3, 4, 5, 3), device=device)
    clean = outcome(tensors, 2, "triton")
    for x in tensors.values():
        x[:, :, :2] = float("nan")
    for one, other in zip(outcome(tensors, 2, "triton"), clean, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize(("batch", "motion"), [(0, 0), (2, 4)])
def test_a_loss_without_counted_elements_is_zero_with_a_zero_gradient(batch, motion, device, poisoned):
    got = outcome(flow_inputs((batch, 2, 4, 2, 3), device=device), motion, "triton")
    assert got[0] == 0 and not got[3].any()


def test_a_mask_with_a_gradient_is_rejected_by_name_and_accepted_by_auto(device):
    tensors = flow_inputs((1, 2, 3, 2, 2), device=device)
    tensors["lip_mask"].requires_grad_()
    with pytest.raises(ValueError, match="^lip_mask must not require a gradient"):
        weighted_flow_loss(**tensors, motion_frames=0, impl="triton")
    weighted_flow_loss(**tensors, motion_frames=0).backward()
    assert tensors["lip_mask"].grad.any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_noising_and_its_gradients_equal_the_reference(dtype, device, poisoned):
    z0, eps = (normal((3, 2, 5, 3, 7), i, dtype, device) for i in range(2))
    t = torch.tensor([0.0, 0.3, 1.0], device=device)
    motion = torch.tensor([0, 2, 5], device=device)

    def outcome(z0, eps, t, impl):
        inputs = [x.detach().requires_grad_() for x in (z0, eps, t)]
        out = add_noise(*inputs, motion_frames=motion, impl=impl)
        out.backward(normal(out.shape, 9, dtype, device).to(out.dtype))
        return [out.detach(), *(x.grad for x in inputs)]

    exact = outcome(z0.double(), eps.double(), t.double(), "reference")
    for got, want in zip(outcome(z0, eps, t, "triton"), exact, strict=True):
        assert_within_budget(got, want, depth=70, slack=SLACK if dtype == torch.bfloat16 else 1.0)


def test_compiling_does_not_break_the_graph(device):
    tensors = flow_inputs((2, 2, 3, 2, 2), device=device)
    tensors["v_hat"].requires_grad_()
    motion, t = torch.tensor([1, 0], device=device), torch.full((2,), 0.3, device=device)

    def step(**x):
        z_t = add_noise(x["z0"], x["eps"], t, motion_frames=motion, impl="triton")
        return weighted_flow_loss(**x, motion_frames=motion, impl="triton") + z_t.mean()

    torch.testing.assert_close(
        torch.compile(step, backend="aot_eager", fullgraph=True)(**tensors), step(**tensors)
    )


@pytest.mark.parametrize("impl", ["triton", "reference"])
def test_motion_frames_may_be_strided_and_beyond_the_clip(impl, device):
    """An expanded tensor and a column are read by their values, and numbers outside 0..f are clamped."""
    tensors = flow_inputs((3, 2, 4, 3, 3), device=device)
    same = outcome(tensors, 2, impl)
    column = torch.tensor([[2, 9], [2, 9], [2, 9]], device=device)[:, 0]
    for motion in (torch.tensor([2], device=device).expand(3), column):
        for one, other in zip(outcome(tensors, motion, impl), same, strict=True):
            assert torch.equal(one, other)
    beyond, inside = (torch.tensor(m, device=device) for m in ([-1, 9, 2], [0, 4, 2]))
    for one, other in zip(outcome(tensors, beyond, impl), outcome(tensors, inside, impl), strict=True):
        assert torch.equal(one, other)


def test_half_precision_gradients_do_not_vanish_behind_a_loss_scale(device):
    """For large batches 2 / n underflows in fp16, so n must divide after the loss scale has multiplied."""
    from xdub_kernels.flow_loss.triton_kernels import flow_loss

    tensors = flow_inputs((1, 2, 3, 4, 4), dtype=torch.float16, device=device)
    motion = torch.zeros(1, dtype=torch.int64, device=device)
    _, _, numbers, weighted, per_element = flow_loss(*tensors.values(), motion, 0.3, 0.3)
    assert weighted.dtype == torch.float16 and weighted.abs().max() > 0.1
    assert per_element.dtype == torch.float32 and per_element.item() == pytest.approx(2 / numbers.item())
