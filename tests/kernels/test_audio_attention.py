"""frame_audio_attention against a loop over frames, and the exact silence of disabled samples."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub_kernels import (
    UnavailableError,
    dispatch,
    frame_audio_attention,
    gate_disabled,
)
from xdub_kernels.testing import assert_within_budget, audio_inputs, normal


def naive(q, k, v, starts, window=16, enabled=None):
    """Return attention frame by frame and head by head, over the rows that exist."""
    q, k, v = q.double(), k.double(), v.double()
    starts = starts.expand(q.shape[0], q.shape[1])
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for f in range(q.shape[1]):
            rows = [r for r in range(starts[b, f], starts[b, f] + window) if 0 <= r < k.shape[1]]
            if not rows or (enabled is not None and not enabled[b]):
                continue
            for h in range(q.shape[3]):
                scores = q[b, f, :, h] @ k[b, rows, h].T / math.sqrt(q.shape[-1])
                out[b, f, :, h] = scores.softmax(-1) @ v[b, rows, h]
    return out


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 3), st.integers(1, 4), st.integers(1, 20), st.sampled_from([1, 3, 16]), st.data())
def test_output_equals_the_loop_over_frames(batch, frames, rows, window, data):
    """Windows inside, half outside and wholly outside; shared and per-sample starts; samples disabled."""
    q, k, v = audio_inputs(batch, frames, 1 + rows % 5, rows, 2, 6, seed=rows)
    shape = data.draw(st.sampled_from([(frames,), (batch, frames)]))
    starts = torch.tensor(
        data.draw(st.lists(st.integers(-20, 25), min_size=math.prod(shape), max_size=math.prod(shape)))
    ).view(shape)
    enabled = torch.tensor(data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch)))
    out = frame_audio_attention(q, k, v, starts, window=window, enabled=enabled)
    assert_within_budget(out, naive(q, k, v, starts, window, enabled), depth=6 + window)


def test_bfloat16_stays_within_its_budget():
    q, k, v = audio_inputs(2, 3, 5, 30, 2, 8, dtype=torch.bfloat16)
    starts = torch.tensor([-3, 9, 25], dtype=torch.int32)
    out = frame_audio_attention(q, k, v, starts)
    assert out.dtype == torch.bfloat16
    assert_within_budget(out, naive(q, k, v, starts), depth=24)


def test_gradients_are_those_of_finite_differences():
    """Gradients of overlapping windows add up, and rows outside every window have none."""
    inputs = [x.requires_grad_() for x in audio_inputs(2, 3, 2, 7, 2, 3, dtype=torch.float64)]
    starts, enabled = torch.tensor([[-1, 1, 2], [0, 9, 5]]), torch.tensor([True, True])
    assert torch.autograd.gradcheck(
        lambda *x: frame_audio_attention(*x, starts, window=3, enabled=enabled), inputs
    )


def test_a_window_wholly_outside_gives_zeros_and_zero_gradients():
    q, k, v = (x.requires_grad_() for x in audio_inputs(1, 3, 4, 10, 2, 6))
    out = frame_audio_attention(q, k, v, torch.tensor([-16, 2, 10]))
    out.sum().backward()
    for frame in (0, 2):
        assert not out[:, frame].any() and not q.grad[:, frame].any()
    assert out[:, 1].any() and torch.isfinite(k.grad).all()


def test_a_disabled_sample_is_exactly_silent_in_value_and_gradient():
    q, k, v = (x.requires_grad_() for x in audio_inputs(3, 2, 4, 20, 2, 6))
    out = frame_audio_attention(q, k, v, torch.tensor([0, 2]), enabled=torch.tensor([True, False, True]))
    out.square().sum().backward()
    for x in (out, q.grad, k.grad, v.grad):
        assert not x[1].any() and x[0].any() and x[2].any()


def test_a_disabled_sample_cannot_pass_nan_on():
    q, k, v = audio_inputs(2, 2, 3, 20, 1, 4)
    for x in (q, k, v):
        x[1] = float("nan")
    v.requires_grad_()
    out = frame_audio_attention(q, k, v, torch.tensor([0, 2]), enabled=torch.tensor([True, False]))
    out.sum().backward()
    assert torch.isfinite(out).all() and torch.isfinite(v.grad[0]).all()


def test_each_frame_hears_its_window_only():
    q, k, v = audio_inputs(1, 3, 2, 40, 2, 4)
    starts = torch.tensor([0, 2, 10])
    before = frame_audio_attention(q, k, v, starts)
    v[:, 18:] += 1.0
    after = frame_audio_attention(q, k, v, starts)
    assert torch.equal(before[:, :2], after[:, :2]) and not torch.equal(before[:, 2], after[:, 2])


def test_the_gate_drops_the_bias_of_a_projection_where_disabled():
    q, k, v = (x.requires_grad_() for x in audio_inputs(2, 2, 3, 20, 2, 4))
    weight, bias = normal((5, 8), 4, torch.float32).requires_grad_(), torch.ones(5, requires_grad=True)
    enabled = torch.tensor([False, True])
    attended = frame_audio_attention(q, k, v, torch.tensor([0, 2]), enabled=enabled).flatten(-2)
    out = gate_disabled(attended @ weight.T + bias, enabled)
    assert not out[0].any()
    torch.testing.assert_close(out[1], attended[1] @ weight.T + bias)
    out.sum().backward()
    assert bias.grad.tolist() == [6.0] * 5
    assert not q.grad[0].any() and not v.grad[0].any()
    assert gate_disabled(out, None) is out


@pytest.mark.parametrize("empty", ["batch", "frames", "tokens", "rows"])
def test_empty_inputs_give_zeros_of_the_right_shape(empty):
    sizes = dict(batch=2, frames=3, tokens=4, rows=9) | {empty: 0}
    q, k, v = (x.requires_grad_() for x in audio_inputs(*sizes.values(), 2, 4))
    out = frame_audio_attention(q, k, v, torch.zeros(sizes["frames"], dtype=torch.int64))
    assert out.shape == q.shape and not out.any()
    out.sum().backward()


def test_compiling_does_not_break_the_graph():
    q, k, v = audio_inputs(2, 3, 4, 20, 2, 4)
    starts, enabled = torch.tensor([0, 2, 10]), torch.tensor([True, False])

    def run(q, k, v):
        return frame_audio_attention(q, k, v, starts, enabled=enabled)

    torch.testing.assert_close(torch.compile(run, backend="aot_eager", fullgraph=True)(q, k, v), run(q, k, v))


MISTAKES = {
    "q": lambda a: a | {"q": a["q"][0]},
    "q dtype": lambda a: a | {"q": a["q"].long()},
    "k": lambda a: a | {"k": a["k"][:, :, :1], "v": a["v"][:, :, :1]},
    "k dtype": lambda a: a | {"k": a["k"].double(), "v": a["v"].double()},
    "v": lambda a: a | {"v": a["v"][:, :-1]},
    "starts": lambda a: a | {"starts": torch.zeros(4, dtype=torch.int64)},
    "starts dtype": lambda a: a | {"starts": torch.zeros(3)},
    "window": lambda a: a | {"window": 0},
    "enabled": lambda a: a | {"enabled": torch.ones(2)},
    "enabled shape": lambda a: a | {"enabled": torch.ones(3, dtype=torch.bool)},
    "impl": lambda a: a | {"impl": "fast"},
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_argument_is_named(mistake):
    q, k, v = audio_inputs(2, 3, 4, 20, 2, 4)
    arguments = MISTAKES[mistake](dict(q=q, k=k, v=v, starts=torch.zeros(3, dtype=torch.int64)))
    with pytest.raises(ValueError, match=rf"^{mistake.split()[0]}\b"):
        frame_audio_attention(**arguments)


def test_an_explicit_request_never_falls_back(monkeypatch):
    monkeypatch.setattr(dispatch, "INTERPRETING", False)
    q, k, v = audio_inputs(1, 1, 1, 4, 1, 2)
    with pytest.raises(UnavailableError, match="triton"):
        frame_audio_attention(q, k, v, torch.tensor([0]), impl="triton")
