"""weighted_flow_loss and add_noise against the printed formulas."""

from __future__ import annotations

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub_kernels import UnavailableError, add_noise, dispatch, weighted_flow_loss
from xdub_kernels.testing import assert_within_budget, flow_inputs, normal


def naive_loss(v_hat, z0, eps, face_mask, lip_mask, motion_frames, face_weight=0.3, lip_weight=0.3):
    """Sum element by element, as printed (Eq. 1, 13), over the frames behind each sample's motion frames."""
    totals, numbers = [0.0] * len(v_hat), [0] * len(v_hat)
    for b, c, f, i, j in itertools.product(*(range(n) for n in v_hat.shape)):
        if f < motion_frames[b]:
            continue
        velocity = eps[b, c, f, i, j].item() - z0[b, c, f, i, j].item()
        weight = (
            1 + face_weight * face_mask[b, 0, f, i, j].item() + lip_weight * lip_mask[b, 0, f, i, j].item()
        )
        totals[b] += weight * (v_hat[b, c, f, i, j].item() - velocity) ** 2
        numbers[b] += 1
    return sum(total / max(number, 1) for total, number in zip(totals, numbers, strict=True)) / len(v_hat)


@settings(max_examples=25, deadline=None)
@given(st.tuples(*(st.integers(1, 3) for _ in range(5))), st.data())
def test_loss_is_the_printed_formula(shape, data):
    tensors = flow_inputs(shape, seed=sum(shape))
    motion = data.draw(st.lists(st.integers(0, shape[2]), min_size=shape[0], max_size=shape[0]))
    weights = dict(face_weight=data.draw(st.sampled_from([0.3, 0.0, 2.5])), lip_weight=0.7)
    loss = weighted_flow_loss(**tensors, **weights, motion_frames=torch.tensor(motion))
    exact = naive_loss(*tensors.values(), motion, **weights)
    assert loss.shape == () and loss.dtype == torch.float32
    assert loss.item() == pytest.approx(exact, rel=1e-5, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_value_and_gradient_stay_within_the_budget(dtype):
    tensors = flow_inputs((2, 5, 7, 5, 3), dtype=dtype)
    tensors["v_hat"].requires_grad_()
    exact = {name: x.detach().double() for name, x in tensors.items()}
    exact["v_hat"].requires_grad_()
    motion = torch.tensor([2, 0])
    loss, want = (weighted_flow_loss(**x, motion_frames=motion) for x in (tensors, exact))
    loss.backward()
    want.backward()
    assert loss.dtype == torch.float32
    assert_within_budget(loss, want, depth=1050)
    assert_within_budget(tensors["v_hat"].grad, exact["v_hat"].grad, depth=1)


def test_gradients_are_those_of_finite_differences():
    tensors = [x.requires_grad_() for x in flow_inputs((2, 2, 3, 2, 2), dtype=torch.float64).values()]
    assert torch.autograd.gradcheck(
        lambda *x: weighted_flow_loss(*x, motion_frames=torch.tensor([1, 0])), tensors
    )


def test_motion_frames_do_not_count_even_as_nan():
    tensors = flow_inputs((2, 3, 4, 2, 2))
    clean = weighted_flow_loss(**tensors, motion_frames=2)
    tensors["z0"][:, :, :2] = float("nan")
    tensors["v_hat"] = tensors["v_hat"].requires_grad_()
    loss = weighted_flow_loss(**tensors, motion_frames=2)
    assert loss == clean
    loss.backward()
    assert torch.equal(tensors["v_hat"].grad[:, :, 2:].isfinite().all(), torch.tensor(True))
    late = weighted_flow_loss(
        **{n: x[:, :, 2:] for n, x in flow_inputs((2, 3, 4, 2, 2)).items()}, motion_frames=0
    )
    assert late.item() == pytest.approx(clean.item())


def test_an_int_means_the_same_number_for_every_sample():
    tensors = flow_inputs((3, 2, 4, 2, 3))
    assert weighted_flow_loss(**tensors, motion_frames=1) == weighted_flow_loss(
        **tensors, motion_frames=torch.tensor([1, 1, 1])
    )


def test_a_batchs_loss_is_the_mean_of_its_micro_batches_whatever_motion_frames_their_samples_have():
    tensors, motion = flow_inputs((4, 2, 4, 2, 3)), torch.tensor([0, 3, 2, 1])
    tensors["v_hat"].requires_grad_()
    whole = weighted_flow_loss(**tensors, motion_frames=motion)
    (gradient,) = torch.autograd.grad(whole, tensors["v_hat"])
    parts = [
        weighted_flow_loss(**{n: x[i : i + 2] for n, x in tensors.items()}, motion_frames=motion[i : i + 2])
        for i in (0, 2)
    ]
    mean = torch.stack(parts).mean()
    torch.testing.assert_close(mean, whole)
    torch.testing.assert_close(torch.autograd.grad(mean, tensors["v_hat"])[0], gradient)


def test_means_per_sample_average_to_the_loss_and_carry_no_gradient():
    tensors = flow_inputs((3, 2, 4, 2, 3))
    tensors["v_hat"].requires_grad_()
    motion = torch.tensor([0, 2, 4])
    loss, sums, numbers = weighted_flow_loss(**tensors, motion_frames=motion, per_sample=True)
    assert numbers.tolist() == [48, 24, 0]
    assert not sums.requires_grad and loss.requires_grad
    torch.testing.assert_close((sums / numbers.clamp(min=1)).mean(), loss.detach())
    alone = {name: x[1:2] for name, x in tensors.items()}
    torch.testing.assert_close(sums[1] / numbers[1], weighted_flow_loss(**alone, motion_frames=2).detach())


@pytest.mark.parametrize(("batch", "motion"), [(0, 0), (2, 4)])
def test_a_loss_without_counted_elements_is_zero_with_a_zero_gradient(batch, motion):
    tensors = flow_inputs((batch, 2, 4, 2, 3))
    tensors["v_hat"].requires_grad_()
    loss = weighted_flow_loss(**tensors, motion_frames=motion)
    loss.backward()
    assert loss == 0 and not tensors["v_hat"].grad.any()


def test_bool_masks_and_a_narrower_prediction_are_accepted():
    tensors = flow_inputs((1, 2, 3, 2, 2))
    plain = weighted_flow_loss(**tensors, motion_frames=0)
    masks = {name: tensors[name].bool() for name in ("face_mask", "lip_mask")}
    assert weighted_flow_loss(**tensors | masks, motion_frames=0) == plain
    narrow = weighted_flow_loss(**tensors | {"v_hat": tensors["v_hat"].bfloat16()}, motion_frames=0)
    assert narrow.dtype == torch.float32
    torch.testing.assert_close(narrow, plain, rtol=0.02, atol=0.02)


def test_noise_blends_all_but_the_motion_frames():
    z0, eps = (normal((3, 2, 4, 2, 2), i, torch.float32) for i in range(2))
    t = torch.tensor([0.0, 0.3, 1.0])
    z_t = add_noise(z0, eps, t, motion_frames=torch.tensor([0, 2, 1]))
    for b, motion in enumerate([0, 2, 1]):
        assert torch.equal(z_t[b, :, :motion], z0[b, :, :motion])
        expected = (1 - t[b]) * z0[b, :, motion:] + t[b] * eps[b, :, motion:]
        torch.testing.assert_close(z_t[b, :, motion:], expected)
    assert torch.equal(add_noise(z0, eps, t, motion_frames=4), z0)
    assert add_noise(z0.bfloat16(), eps.bfloat16(), t, motion_frames=0).dtype == torch.bfloat16


def test_noise_in_fp32_has_the_bits_of_the_printed_formula_and_bf16_is_rounded_once():
    """Eq. 4 with t = 0 on motion frames, as a formula on whole tensors."""
    z0, eps = (normal((3, 2, 4, 2, 2), i, torch.float32) for i in range(2))
    t, motion = torch.tensor([0.1, 0.3, 0.9]), torch.tensor([0, 2, 1])
    frame_t = t[:, None].expand(-1, 4).masked_fill(torch.arange(4) < motion[:, None], 0.0)
    frame_t = frame_t[:, None, :, None, None]
    assert torch.equal(add_noise(z0, eps, t, motion_frames=motion), (1 - frame_t) * z0 + frame_t * eps)
    z0, eps = z0.bfloat16(), eps.bfloat16()
    exact = (1 - frame_t) * z0.float() + frame_t * eps.float()
    assert torch.equal(add_noise(z0, eps, t, motion_frames=motion), exact.bfloat16())


def test_compiling_does_not_break_the_graph():
    tensors = flow_inputs((2, 2, 3, 2, 2))
    tensors["v_hat"].requires_grad_()

    def run(motion, **x):
        z_t = add_noise(x["z0"], x["eps"], torch.full((2,), 0.3), motion_frames=motion)
        return weighted_flow_loss(**x, motion_frames=motion) + z_t.mean()

    motion = torch.tensor([1, 0])
    compiled = torch.compile(run, backend="aot_eager", fullgraph=True)(motion, **tensors)
    torch.testing.assert_close(compiled, run(motion, **tensors))


MISTAKES = {
    "v_hat": lambda a: a | {"v_hat": a["v_hat"][0]},
    "z0": lambda a: a | {"z0": a["z0"][:, :1]},
    "eps": lambda a: a | {"eps": a["eps"].to("meta")},
    "face_mask": lambda a: a | {"face_mask": a["face_mask"][:, 0]},
    "lip_mask": lambda a: a | {"lip_mask": a["lip_mask"].int()},
    "motion_frames": lambda a: a | {"motion_frames": 5},
    "motion_frames shape": lambda a: a | {"motion_frames": torch.tensor([1])},
    "motion_frames dtype": lambda a: a | {"motion_frames": torch.tensor([1.0, 0.0])},
    "motion_frames type": lambda a: a | {"motion_frames": True},
    "impl": lambda a: a | {"impl": "fast"},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_argument_is_named(mistake):
    arguments = MISTAKES[mistake](flow_inputs((2, 2, 4, 2, 2)) | {"motion_frames": 0})
    with pytest.raises(ValueError, match=rf"^{mistake.split()[0]}\b"):
        weighted_flow_loss(**arguments)


def test_noising_names_a_wrong_argument(monkeypatch):
    monkeypatch.setattr(dispatch, "INTERPRETING", False)
    z = torch.zeros(2, 1, 2, 2, 2)
    for name, arguments in {
        "z0": (z[0], z[0], torch.zeros(2)),
        "eps": (z, z.double(), torch.zeros(2)),
        "t": (z, z, torch.zeros(3)),
    }.items():
        with pytest.raises(ValueError, match=rf"^{name}\b"):
            add_noise(*arguments, motion_frames=0)
    with pytest.raises(UnavailableError, match="triton"):
        add_noise(z, z, torch.zeros(2), motion_frames=0, impl="triton")
