"""Windows of audio read in place, against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub_kernels import UnavailableError, frame_audio_attention
from xdub_kernels.testing import assert_within_budget, audio_inputs, embedded, normal

SLACK = 1.5


def outcome(q, k, v, starts, impl, **options):
    inputs = [x.detach().requires_grad_() for x in (q, k, v)]
    out = frame_audio_attention(*inputs, starts, impl=impl, **options)
    out.backward(normal(out.shape, 31, torch.float64, q.device.type).to(out.dtype))
    return [out.detach(), *(x.grad for x in inputs)]


def check(tensors, starts, slack=1.0, **options):
    want = outcome(*(x.double() for x in tensors), starts, "reference", **options)
    for got, exact in zip(outcome(*tensors, starts, "triton", **options), want, strict=True):
        assert_within_budget(got, exact, depth=300, slack=slack)


STARTS = {
    "inside": [0, 5, 9],
    "half outside": [-9, 3, 17],
    "wholly outside": [-16, 4, 25],
    "the same window": [3, 3, 3],
}


@pytest.mark.parametrize("where", STARTS)
@pytest.mark.parametrize("window", [1, 5, 16, 17])
def test_output_and_gradients_equal_the_reference(where, window, device, poisoned):
    tensors = audio_inputs(2, 3, 7, 25, 2, 10, device=device)
    check(tensors, torch.tensor(STARTS[where], device=device), window=window)


@pytest.mark.parametrize("tokens", [1, 64, 67, 131])
def test_any_number_of_tokens_equals_the_reference(tokens, device, poisoned):
    check(audio_inputs(1, 2, tokens, 23, 1, 16, device=device), torch.tensor([-3, 8], device=device))


def test_bfloat16_stays_within_its_budget(device, poisoned):
    tensors = audio_inputs(2, 3, 5, 30, 2, 8, dtype=torch.bfloat16, device=device)
    check(tensors, torch.tensor([-3, 9, 25], dtype=torch.int32, device=device), slack=SLACK)


@settings(max_examples=12, deadline=None)
@given(st.integers(1, 2), st.integers(1, 3), st.integers(1, 9), st.integers(1, 20), st.data())
def test_any_starts_shared_or_by_sample_equal_the_reference(device, batch, frames, tokens, rows, data):
    shape = data.draw(st.sampled_from([(frames,), (batch, frames)]))
    count = torch.Size(shape).numel()
    starts = torch.tensor(
        data.draw(st.lists(st.integers(-20, 25), min_size=count, max_size=count)), device=device
    )
    enabled = torch.tensor(data.draw(st.lists(st.booleans(), min_size=batch, max_size=batch)), device=device)
    check(audio_inputs(batch, frames, tokens, rows, 2, 6, device=device), starts.view(shape), enabled=enabled)


def test_slices_of_a_joint_projection_are_read_in_place(device, poisoned):
    q, k, v = audio_inputs(2, 3, 7, 25, 2, 10, device=device)
    starts = torch.tensor([-2, 4, 20], device=device)
    plain = frame_audio_attention(q, k, v, starts, impl="triton")
    assert torch.equal(frame_audio_attention(*(embedded(x) for x in (q, k, v)), starts, impl="triton"), plain)


def test_a_disabled_sample_is_exactly_silent_and_cannot_pass_nan_on(device, poisoned):
    q, k, v = audio_inputs(2, 2, 5, 20, 2, 6, device=device)
    for x in (q, k, v):
        x[1] = float("nan")
    enabled = torch.tensor([True, False], device=device)
    for x in outcome(q, k, v, torch.tensor([0, 2], device=device), "triton", enabled=enabled):
        assert not x[1].any() and x[0].any() and torch.isfinite(x).all()


@pytest.mark.parametrize("empty", ["batch", "frames", "tokens", "rows"])
def test_empty_inputs_give_zeros_of_the_right_shape(empty, device, poisoned):
    sizes = dict(batch=2, frames=3, tokens=4, rows=9) | {empty: 0}
    tensors = audio_inputs(*sizes.values(), 2, 4, device=device)
    starts = torch.zeros(sizes["frames"], dtype=torch.int64, device=device)
    for x in outcome(*tensors, starts, "triton"):
        assert not x.any()


def test_compiling_does_not_break_the_graph(device):
    q, k, v = audio_inputs(2, 3, 4, 20, 2, 4, device=device)
    starts = torch.tensor([0, 2, 10], device=device)
    enabled = torch.tensor([True, False], device=device)

    def step(q, k, v):
        return frame_audio_attention(q, k, v, starts, enabled=enabled, impl="triton")

    torch.testing.assert_close(
        torch.compile(step, backend="aot_eager", fullgraph=True)(q, k, v), step(q, k, v)
    )


def test_windows_too_large_for_shared_memory_are_rejected_by_name_and_accepted_by_auto(device):
    q, k, v = audio_inputs(1, 2, 4, 90, 1, 4, device=device)
    starts = torch.tensor([0, 10], device=device)
    with pytest.raises(UnavailableError, match="windows of 64 rows"):
        frame_audio_attention(q, k, v, starts, window=80, impl="triton")
    assert frame_audio_attention(q, k, v, starts, window=80).shape == q.shape
