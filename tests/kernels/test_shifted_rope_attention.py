"""shifted_rope_attention against a loop written from the paper's text, and the properties RoPE must have."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub_kernels import Rope, UnavailableError, attention, dispatch, qk_norm_rope, shifted_rope_attention
from xdub_kernels.testing import assert_within_budget, attention_inputs, normal


def naive_positions(rope):
    """Return (k, i, j) token by token, as printed: target in place, reference shifted by (h, w) in space."""
    frames, height, width = rope.grid
    target = [(k, i, j) for k in range(frames) for i in range(height) for j in range(width)]
    reference = [
        (k, i + height, j + width)
        for k in range(rope.reference_frames)
        for i in range(height)
        for j in range(width)
    ]
    return target + reference if rope.order == "target_first" else reference + target


def naive_rotate(vector, position, axes_dim, theta):
    """Rotate the pairs of one head's vector (list of floats), axis after axis."""
    out, channel = list(vector), 0
    for step, dim in zip(position, axes_dim, strict=True):
        for i in range(dim // 2):
            angle = step * theta ** (-2 * i / dim)
            a, b = vector[channel], vector[channel + 1]
            out[channel] = a * math.cos(angle) - b * math.sin(angle)
            out[channel + 1] = a * math.sin(angle) + b * math.cos(angle)
            channel += 2
    return out


def naive_norm(x, weight, norm, eps):
    if norm == "none":
        return x
    out = torch.empty_like(x)
    for b in range(x.shape[0]):
        for n in range(x.shape[1]):
            row = x[b, n]
            if norm == "hidden":
                row = row / math.sqrt(row.square().mean().item() + eps)
                out[b, n] = row if weight is None else row * weight.view_as(row)
            else:
                for head in range(x.shape[2]):
                    scaled = row[head] / math.sqrt(row[head].square().mean().item() + eps)
                    out[b, n, head] = scaled if weight is None else scaled * weight
    return out


def naive(q, k, v, rope, *, q_weight=None, k_weight=None, norm="none", eps=1e-6):
    """Return shifted RoPE attention in float64, token by token."""
    q, k, v = q.double(), k.double(), v.double()
    dim = q.shape[-1]
    axes_dim = rope.axes_dim or (dim - 4 * (dim // 6), 2 * (dim // 6), 2 * (dim // 6))
    positions = naive_positions(rope)
    q = naive_norm(q, None if q_weight is None else q_weight.double(), norm, eps)
    k = naive_norm(k, None if k_weight is None else k_weight.double(), norm, eps)
    out = torch.zeros_like(q)
    for b in range(q.shape[0]):
        for head in range(q.shape[2]):
            turned = [
                torch.tensor(
                    [
                        naive_rotate(x[b, n, head].tolist(), positions[n], axes_dim, rope.theta)
                        for n in range(len(positions))
                    ],
                    dtype=torch.float64,
                )
                for x in (q, k)
            ]
            scores = turned[0] @ turned[1].T / math.sqrt(dim)
            out[b, :, head] = torch.softmax(scores, dim=-1) @ v[b, :, head]
    return out


CASES = {
    "editor": dict(rope=Rope((2, 3, 2), 2)),
    "generator": dict(rope=Rope((3, 2, 3), 1)),
    "no reference": dict(rope=Rope((2, 2, 3), 0)),
    "reference first": dict(rope=Rope((3, 1, 2), 3, order="reference_first")),
    "one reference frame first": dict(rope=Rope((3, 2, 2), 1, order="reference_first")),
    "space only": dict(rope=Rope((1, 5, 3), 0)),
    "one token": dict(rope=Rope((1, 1, 1), 0)),
    "head norm": dict(rope=Rope((2, 3, 1), 2), norm="head"),
    "hidden norm": dict(rope=Rope((2, 3, 1), 1), norm="hidden"),
    "own axes": dict(rope=Rope((2, 2, 2), 0, axes_dim=(2, 4, 8))),
    "axes without time": dict(rope=Rope((2, 2, 2), 2, axes_dim=(0, 8, 6))),
    "other theta": dict(rope=Rope((5, 1, 2), 1, theta=100.0)),
}


@pytest.mark.parametrize("dim", [14, 32])
@pytest.mark.parametrize("case", CASES)
def test_output_equals_the_loop_over_tokens(case, dim):
    options = dict(CASES[case])
    rope = options["rope"]
    if rope.axes_dim is not None:
        frame_channels, *space_channels = rope.axes_dim
        options["rope"] = replace(rope, axes_dim=(frame_channels + dim - 14, *space_channels))
    q, k, v = attention_inputs(2, rope, 3, dim)
    if norm := options.get("norm"):
        size = dim if norm == "head" else 3 * dim
        options |= {
            "q_weight": normal((size,), 7, torch.float32),
            "k_weight": normal((size,), 8, torch.float32),
        }
    out = shifted_rope_attention(q, k, v, **options)
    assert_within_budget(out, naive(q, k, v, **options), depth=dim + q.shape[1])


@pytest.mark.parametrize("backend", ["reference", "math", "sdpa", "flash"])
def test_every_cpu_core_gives_the_same_numbers_on_more_tokens_than_the_small_path(backend):
    q, k, v = attention_inputs(1, Rope((7, 3, 4), 7), 2, 32)
    options = dict(rope=Rope((7, 3, 4), 7), norm="head")
    exact = shifted_rope_attention(q.double(), k.double(), v.double(), **options, backend="math")
    assert_within_budget(shifted_rope_attention(q, k, v, **options, backend=backend), exact, depth=200)


def test_bfloat16_stays_within_its_budget_and_keeps_its_dtype():
    q, k, v = attention_inputs(1, Rope((3, 5, 3), 3), 2, 32, dtype=torch.bfloat16)
    options = dict(rope=Rope((3, 5, 3), 3), norm="head")
    out = shifted_rope_attention(q, k, v, **options)
    assert out.dtype == torch.bfloat16
    assert_within_budget(out, naive(q, k, v, **options), depth=122)


@pytest.mark.parametrize("backend", ["math", "reference"])
@pytest.mark.parametrize("norm", ["none", "head", "hidden"])
def test_gradients_are_those_of_finite_differences(norm, backend):
    q, k, v = (x.requires_grad_() for x in attention_inputs(1, Rope((2, 1, 2), 1), 2, 6, dtype=torch.float64))
    weights = [normal((6 if norm == "head" else 12,), i, torch.float64).requires_grad_() for i in (5, 6)]

    def run(q, k, v, q_weight, k_weight):
        if norm == "none":
            q_weight = k_weight = None
        return shifted_rope_attention(
            q,
            k,
            v,
            Rope((2, 1, 2), 1),
            norm=norm,
            q_weight=q_weight,
            k_weight=k_weight,
            backend=backend,
        )

    assert torch.autograd.gradcheck(run, (q, k, v, *weights))


def test_gradients_of_the_fused_core_equal_those_of_the_formula():
    inputs = [x.requires_grad_() for x in attention_inputs(1, Rope((5, 3, 5), 1), 2, 16)]
    exact = [x.detach().double().requires_grad_() for x in inputs]
    options = dict(rope=Rope((5, 3, 5), 1), norm="hidden")
    shifted_rope_attention(*inputs, **options).square().sum().backward()
    shifted_rope_attention(*exact, **options, backend="math").square().sum().backward()
    for got, want in zip(inputs, exact, strict=True):
        assert_within_budget(got.grad, want.grad, depth=4 * 90)


def scores(q, k, rope):
    """Return the rotated inner products [H, L, L] of the first sample."""
    q, k = qk_norm_rope(q, k, rope)
    return torch.einsum("lhd,mhd->hlm", q[0], k[0])


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.sampled_from([6, 8, 14, 32]))
def test_inside_one_segment_the_shift_changes_nothing(frames, height, width, dim):
    """The reference is the target shifted as a whole, and RoPE depends on differences only."""
    grid, tokens = (frames, height, width), frames * height * width
    q, k, _ = attention_inputs(1, Rope(grid, 0), 2, dim, dtype=torch.float64)
    plain = scores(q, k, Rope(grid, 0))
    doubled = [torch.cat([x, x], dim=1) for x in (q, k)]
    both = scores(*doubled, Rope(grid, frames))
    torch.testing.assert_close(both[:, :tokens, :tokens], plain)
    torch.testing.assert_close(both[:, tokens:, tokens:], plain)


def test_between_the_segments_the_shift_counts():
    grid, tokens = (2, 2, 3), 12
    q, k, _ = attention_inputs(1, Rope(grid, 0), 2, 12, dtype=torch.float64)
    doubled = [torch.cat([x, x], dim=1) for x in (q, k)]
    both = scores(*doubled, Rope(grid, 2))
    assert (both[:, :tokens, tokens:] - both[:, :tokens, :tokens]).abs().max() > 0.1


def test_token_order_only_moves_the_segments():
    rope, tokens = Rope((3, 2, 2), 1), 12
    q, k, v = attention_inputs(2, rope, 2, 12)
    out = shifted_rope_attention(q, k, v, rope)
    turned = [torch.cat([x[:, tokens:], x[:, :tokens]], dim=1) for x in (q, k, v)]
    other = shifted_rope_attention(*turned, replace(rope, order="reference_first"))
    torch.testing.assert_close(torch.cat([other[:, 4:], other[:, :4]], dim=1), out)


def test_rotation_keeps_the_length_of_every_vector():
    q, k, _ = attention_inputs(1, Rope((3, 4, 5), 3), 2, 32)
    turned, _ = qk_norm_rope(q, k, Rope((3, 4, 5), 3))
    torch.testing.assert_close(turned.norm(dim=-1), q.norm(dim=-1))


def test_empty_batch_gives_an_empty_result_with_a_backward():
    q = torch.zeros(0, 9, 2, 8, requires_grad=True)
    out = shifted_rope_attention(q, q, q, Rope((2, 1, 3), 1), norm="head")
    out.sum().backward()
    assert out.shape == q.grad.shape == (0, 9, 2, 8)


def test_non_contiguous_inputs_give_the_same_result():
    q, k, v = attention_inputs(2, Rope((2, 3, 3), 2), 2, 8)
    options = dict(rope=Rope((2, 3, 3), 2), norm="head")
    strided = [x.permute(2, 0, 3, 1).contiguous().permute(1, 3, 0, 2) for x in (q, k, v)]
    assert not strided[0].is_contiguous()
    torch.testing.assert_close(
        shifted_rope_attention(*strided, **options), shifted_rope_attention(q, k, v, **options)
    )


def test_tables_first_built_under_inference_mode_serve_training_later():
    options = dict(rope=Rope((4, 1, 3), 1, theta=1234.5))
    q, k, v = attention_inputs(1, Rope((4, 1, 3), 1), 1, 8)
    with torch.inference_mode():
        shifted_rope_attention(q, k, v, **options)
    q.requires_grad_()
    shifted_rope_attention(q, k, v, **options).sum().backward()
    assert torch.isfinite(q.grad).all()


def test_autocast_does_not_narrow_the_reference():
    q, k, v = attention_inputs(1, Rope((2, 3, 3), 2), 2, 8)
    options = dict(rope=Rope((2, 3, 3), 2), norm="head")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = shifted_rope_attention(q, k, v, **options)
    torch.testing.assert_close(out, shifted_rope_attention(q, k, v, **options))


def test_compiling_does_not_break_the_graph_and_changes_nothing():
    q, k, v = (x.requires_grad_() for x in attention_inputs(1, Rope((3, 5, 5), 1), 2, 12))

    def run(q, k, v):
        return shifted_rope_attention(q, k, v, Rope((3, 5, 5), 1), norm="hidden")

    torch.testing.assert_close(torch.compile(run, backend="aot_eager", fullgraph=True)(q, k, v), run(q, k, v))


GOOD = dict(rope=Rope((2, 2, 3), 1))
MISTAKES = {
    "q": (lambda a: a | {"q": a["q"][:, :-1], "k": a["k"][:, :-1], "v": a["v"][:, :-1]}),
    "k": (lambda a: a | {"k": a["k"][:, :-1]}),
    "k dtype": (lambda a: a | {"k": a["k"].double()}),
    "v": (lambda a: a | {"v": a["v"][..., :-2]}),
    "q dtype": (lambda a: a | {"q": a["q"].int()}),
    "q dimensions": (lambda a: a | {"q": a["q"][0]}),
    "rope": (lambda a: a | {"rope": (2, 2, 3)}),
    "norm": (lambda a: a | {"norm": "layer"}),
    "q_weight": (lambda a: a | {"norm": "head", "q_weight": torch.ones(24)}),
    "k_weight": (lambda a: a | {"norm": "hidden", "k_weight": torch.ones(12)}),
    "k_weight without norm": (lambda a: a | {"k_weight": torch.ones(12)}),
    "axes_dim": (lambda a: a | {"rope": replace(a["rope"], axes_dim=(4, 4, 2))}),
    "axes_dim odd": (lambda a: a | {"rope": replace(a["rope"], axes_dim=(6, 3, 3))}),
    "backend": (lambda a: a | {"backend": "fastest"}),
    "impl": (lambda a: a | {"impl": "cuda"}),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_argument_is_named(mistake):
    q, k, v = attention_inputs(1, Rope((2, 2, 3), 1), 2, 12)
    arguments = MISTAKES[mistake](dict(q=q, k=k, v=v, **GOOD))
    with pytest.raises(ValueError, match=rf"^{mistake.split()[0]}\b"):
        shifted_rope_attention(**arguments)


def test_an_odd_head_dim_and_a_foreign_device_are_refused():
    odd = torch.zeros(1, 18, 2, 7)
    with pytest.raises(ValueError, match="^q must have an even head dim"):
        shifted_rope_attention(odd, odd, odd, **GOOD)
    q = torch.zeros(1, 18, 2, 12)
    with pytest.raises(ValueError, match="^v must be on q's device"):
        shifted_rope_attention(q, q, q.to("meta"), **GOOD)


@pytest.mark.parametrize("request_", [{"impl": "triton"}, {"backend": "triton"}, {"backend": "cudnn"}])
def test_an_explicit_request_never_falls_back(request_, monkeypatch):
    monkeypatch.setattr(dispatch, "INTERPRETING", False)
    q = torch.zeros(1, 18, 2, 12)
    with pytest.raises(UnavailableError, match=next(iter(request_.values()))):
        shifted_rope_attention(q, q, q, **GOOD, **request_)


def test_attention_alone_handles_keys_of_another_length():
    q, k, v = (normal((2, n, 3, 8), i, torch.float32) for i, n in enumerate((5, 70, 70)))
    assert_within_budget(
        attention(q, k, v), attention(q.double(), k.double(), v.double(), backend="math"), depth=80
    )
    with pytest.raises(ValueError, match="^k must match"):
        attention(q, k[:1], v[:1])


def test_the_compiler_treats_a_devices_capability_as_a_constant():
    """The mark, set by hand, is the mark of torch's own decorator."""

    def marked():
        return 0

    torch.compiler.assume_constant_result(marked)
    assert vars(marked) == vars(dispatch.capability)
