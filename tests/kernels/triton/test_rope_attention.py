"""The fused q/k norm, shifted RoPE and attention against float64, forward and backward, over odd shapes."""

from __future__ import annotations

import pytest
import torch
import torch.utils.checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xdub_kernels import Rope, UnavailableError, attention, qk_norm_rope, shifted_rope_attention
from xdub_kernels.testing import assert_within_budget, attention_inputs, embedded, normal

SLACK = 1.5
"""Results go through more than one rounding to bf16: q and k after the prologue, probabilities, and the output."""
CASES = {
    "no reference": dict(rope=Rope((2, 3, 5), 0)),
    "one reference frame": dict(rope=Rope((3, 5, 3), 1), norm="head"),
    "as many reference frames": dict(rope=Rope((2, 3, 7), 2), norm="head"),
    "reference first": dict(rope=Rope((3, 5, 3), 1, order="reference_first"), norm="hidden"),
    "norm across heads": dict(rope=Rope((2, 7, 3), 2), norm="hidden"),
    "a single token": dict(rope=Rope((1, 1, 1), 0), norm="head"),
    "one frame": dict(rope=Rope((1, 7, 5), 1)),
    "a row": dict(rope=Rope((1, 1, 37), 0), norm="hidden"),
    "other axes": dict(rope=Rope((4, 2, 3), 4, axes_dim=(2, 4, 8), theta=100.0)),
    "axes without time": dict(rope=Rope((2, 2, 2), 2, axes_dim=(0, 8, 6)), norm="head"),
}
SHARES = {
    "first run of each frame": dict(rope=Rope((2, 3, 4), 2, share=(0, 3)), norm="head"),
    "last run, padded": dict(rope=Rope((2, 3, 5), 1, share=(1, 2)), norm="hidden"),
    "only padding": dict(rope=Rope((3, 1, 2), 3, order="reference_first", share=(2, 3))),
}
"""Ropes of one rank of several, which have no attention of their own."""
HEADS, DIM = 3, 14


def build(case, dtype, device, heads=HEADS, dim=DIM, batch=2):
    """Return (q, k, v, weights...), the gradient of the output, and the options."""
    options = dict((CASES | SHARES)[case]) if isinstance(case, str) else dict(case)
    tensors = list(attention_inputs(batch, options["rope"], heads, dim, dtype=dtype, device=device))
    size = {"head": dim, "hidden": heads * dim}.get(options.get("norm", "none"))
    if size:
        tensors += [1 + 0.3 * normal((size,), 7 + i, torch.float32, device) for i in range(2)]
    return tensors, normal(tensors[0].shape, 20, dtype, device), options


def run(function, tensors, gradient, options, **more):
    """Return the output and the gradients of all inputs."""
    tensors = [x.detach().requires_grad_() for x in tensors]
    q, k, *v = tensors[:2] if function is qk_norm_rope else tensors[:3]
    names = ("q_weight", "k_weight")
    weights = dict(zip(names, tensors[3:], strict=False))
    out = function(q, k, *v, **weights, **options, **more)
    outs = out if isinstance(out, tuple) else (out,)
    torch.autograd.backward(outs, [gradient] * len(outs))
    return [x.detach() for x in outs], [x.grad for x in tensors if x.grad is not None]


def double(tensors):
    return [x.double() for x in tensors]


def check(function, tensors, gradient, options, depth, slack=1.0, **more):
    exact_outs, exact_grads = run(function, double(tensors), gradient.double(), options, impl="reference")
    outs, grads = run(function, tensors, gradient, options, impl="triton", **more)
    assert len(grads) == len(exact_grads)
    inputs = tensors[:2] + tensors[3:] if function is qk_norm_rope else tensors
    for got, want, like in zip(
        outs + grads, exact_outs + exact_grads, tensors[:1] * len(outs) + inputs, strict=True
    ):
        assert got.dtype == like.dtype
        # fp32 weights of a bf16 model get gradients that are as exact as the model's other tensors.
        assert_within_budget(got.to(tensors[0].dtype), want, depth=depth, slack=slack)


@pytest.mark.parametrize("case", [*CASES, *SHARES])
def test_prologue_and_its_gradients_equal_the_reference(case, device, poisoned):
    tensors, gradient, options = build(case, torch.float32, device)
    check(qk_norm_rope, tensors, gradient, options, depth=200)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("case", CASES)
def test_attention_and_all_gradients_equal_the_reference(case, deterministic, device, poisoned):
    tensors, gradient, options = build(case, torch.float32, device)
    more = dict(backend="triton", deterministic=deterministic)
    check(shifted_rope_attention, tensors, gradient, options, depth=400, **more)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("case", ["one reference frame", "norm across heads"])
def test_bfloat16_stays_within_its_budget(case, deterministic, device, poisoned):
    tensors, gradient, options = build(case, torch.bfloat16, device)
    more = dict(backend="triton", deterministic=deterministic)
    check(shifted_rope_attention, tensors, gradient, options, depth=400, slack=SLACK, **more)
    check(qk_norm_rope, tensors, gradient, options, depth=200, slack=SLACK)


@pytest.mark.parametrize("dim", [2, 6, 64, 128])
def test_every_head_dim_equals_the_reference(dim, device):
    tensors, gradient, options = build(dict(rope=Rope((1, 3, 7), 1), norm="head"), torch.float32, device,
                                       heads=2, dim=dim, batch=1)  # fmt: skip
    check(shifted_rope_attention, tensors, gradient, options, depth=600, backend="triton")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="the core of the CPU has its own test below")
@pytest.mark.parametrize("backend", ["flash", "cudnn", "flash_attn"])
def test_every_core_of_the_gpu_gives_the_same_numbers(backend):
    from xdub_kernels.attention import cores

    tensors, gradient, options = build("one reference frame", torch.bfloat16, "cuda", dim=64)
    if reason := cores.obstacle(backend, tensors[0]):
        pytest.skip(reason)
    check(shifted_rope_attention, tensors, gradient, options, depth=400, slack=SLACK, backend=backend)


@pytest.mark.skipif(torch.cuda.is_available(), reason="flash on CUDA has its own test above")
def test_the_cpu_flash_core_gives_the_same_numbers(device):
    tensors, gradient, options = build("one reference frame", torch.float32, device)
    check(shifted_rope_attention, tensors, gradient, options, depth=400, backend="flash")


def test_slices_of_a_joint_projection_are_read_in_place(device, poisoned):
    """Strides of a qkv tensor, NaN all around."""
    tensors, gradient, options = build("norm across heads", torch.float32, device)
    plain = shifted_rope_attention(*tensors[:3], q_weight=tensors[3], k_weight=tensors[4], **options, impl="triton",
                                   backend="triton")  # fmt: skip
    inside = [embedded(x) for x in tensors[:3]]
    got = shifted_rope_attention(*inside, q_weight=tensors[3], k_weight=tensors[4], **options, impl="triton",
                                 backend="triton")  # fmt: skip
    assert torch.equal(got, plain)


def test_transposed_inputs_are_copied(device):
    tensors, _, options = build("no reference", torch.float32, device)
    turned = [x.permute(3, 0, 2, 1).contiguous().permute(1, 3, 2, 0) for x in tensors]
    assert turned[0].stride(-1) != 1
    torch.testing.assert_close(
        shifted_rope_attention(*turned, **options, impl="triton", backend="triton"),
        shifted_rope_attention(*tensors, **options, impl="triton", backend="triton"),
    )


def test_an_empty_batch_gives_an_empty_result_with_a_backward(device):
    tensors, gradient, options = build("one reference frame", torch.float32, device, batch=0)
    outs, grads = run(shifted_rope_attention, tensors, gradient, options, impl="triton", backend="triton")
    assert outs[0].shape == tensors[0].shape and not any(g.any() for g in grads)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 5), st.integers(1, 5)),
    st.sampled_from(["none", "one", "all"]),
    st.sampled_from(["none", "head", "hidden"]),
    st.sampled_from(["target_first", "reference_first"]),
    st.sampled_from([(1, 6), (3, 8), (2, 14)]),
)
def test_any_grid_and_any_norm_equal_the_reference(device, grid, references, norm, order, size):
    heads, dim = size
    frames = {"none": 0, "one": 1, "all": grid[0]}[references]
    case = dict(rope=Rope(grid, frames, order), norm=norm)
    tensors, gradient, options = build(case, torch.float32, device, heads=heads, dim=dim, batch=1)
    check(shifted_rope_attention, tensors, gradient, options, depth=400, backend="triton")


def test_inside_one_segment_the_shift_changes_nothing(device):
    """The reference is the target shifted as a whole, and RoPE sees differences only."""
    grid, tokens = (2, 3, 5), 30
    q, k, v = attention_inputs(1, Rope(grid, 0), 2, 12, device=device)
    plain = shifted_rope_attention(q, k, v, Rope(grid, 0), impl="triton", backend="triton")
    first, second = qk_norm_rope(*[torch.cat([x, x], 1) for x in (q, k)], rope=Rope(grid, 2), impl="triton")
    among_references = attention(first[:, tokens:], second[:, tokens:], v, impl="triton")
    torch.testing.assert_close(among_references, plain, rtol=1e-5, atol=1e-5)


def test_between_the_segments_the_shift_counts(device):
    grid, tokens = (2, 3, 5), 30
    q, k, _ = attention_inputs(1, Rope(grid, 0), 2, 12, device=device)
    turned, _ = qk_norm_rope(*[torch.cat([x, x], 1) for x in (q, k)], rope=Rope(grid, 2), impl="triton")
    assert (turned[:, tokens:] - turned[:, :tokens]).abs().max() > 0.1


def test_attention_alone_takes_keys_of_another_length(device, poisoned):
    q, k, v = (normal((2, n, 3, 10), i, torch.float32, device) for i, n in enumerate((37, 53, 53)))
    gradient = normal(q.shape, 9, torch.float32, device)

    def gradients(tensors, impl):
        tensors = [x.detach().requires_grad_() for x in tensors]
        out = attention(*tensors, impl=impl)
        out.backward(gradient.to(out.dtype))
        return [out.detach(), *(x.grad for x in tensors)]

    for got, want in zip(
        gradients([q, k, v], "triton"), gradients(double([q, k, v]), "reference"), strict=True
    ):
        assert_within_budget(got, want, depth=200)


def test_the_deterministic_backward_gives_the_same_bits_twice(device):
    tensors, gradient, options = build("one frame", torch.float32, device, batch=1)
    runs = [
        run(
            shifted_rope_attention,
            tensors,
            gradient,
            options,
            impl="triton",
            backend="triton",
            deterministic=True,
        )
        for _ in range(2)
    ]
    for one, two in zip(runs[0][1], runs[1][1], strict=True):
        assert torch.equal(one, two)


def test_deterministic_follows_torchs_own_switch(device, monkeypatch):
    from xdub_kernels.attention import cores

    switches = []
    backward = cores.backward
    monkeypatch.setattr(
        cores,
        "backward",
        lambda *a, deterministic: switches.append(deterministic) or backward(*a, deterministic=deterministic),
    )
    tensors, gradient, options = build("a single token", torch.float32, device)
    for enabled in (True, False):
        torch.use_deterministic_algorithms(enabled)
        try:
            run(shifted_rope_attention, tensors, gradient, options, impl="triton", backend="triton")
        finally:
            torch.use_deterministic_algorithms(False)
    assert switches == [True, False]


def test_raw_inputs_are_kept_for_backward_and_no_rotated_copies(device):
    tensors, _, options = build("one reference frame", torch.float32, device)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        shifted_rope_attention(*[x.requires_grad_() for x in tensors[:3]], q_weight=tensors[3], k_weight=tensors[4],
                               **options, impl="triton", backend="triton")  # fmt: skip
    large = {x.data_ptr() for x in kept if x.numel() == tensors[0].numel()}
    inputs = {x.data_ptr() for x in tensors[:3]}
    assert inputs < large and len(large) == 4  # q, k, v and the output


class Layer(torch.nn.Module):
    """Attention with a trained norm weight."""

    def __init__(self, weight, options):
        super().__init__()
        self.weight = torch.nn.Parameter(weight.clone())
        self.options = options

    def forward(self, q, k, v):
        weights = dict(q_weight=self.weight, k_weight=self.weight)
        return shifted_rope_attention(q, k, v, **weights, **self.options, impl="triton", backend="triton")


def wrap_in_checkpoint(layer):
    """Return the layer recomputed in backward."""
    return lambda *x: torch.utils.checkpoint.checkpoint(layer, *x, use_reentrant=False)


def wrap_in_functional_call(layer):
    """Return the layer with its parameters passed as arguments."""
    return lambda *x: torch.func.functional_call(layer, dict(layer.named_parameters()), x)


def wrap_in_autocast(layer):
    """Return the layer under bf16 autocast."""

    def call(*x):
        with torch.autocast(x[0].device.type, dtype=torch.bfloat16):
            return layer(*x)

    return call


def wrap_in_compile(layer):
    """Return the layer traced as one graph."""
    return torch.compile(layer, backend="aot_eager", fullgraph=True)


@pytest.mark.parametrize(
    "wrap", [wrap_in_checkpoint, wrap_in_functional_call, wrap_in_autocast, wrap_in_compile]
)
def test_a_wrapped_layer_has_the_same_output_and_gradients(wrap, device):
    small = dict(rope=Rope((2, 3, 5), 1), norm="head")
    tensors, gradient, options = build(small, torch.float32, device, batch=1)
    layer = Layer(tensors[3], options)

    def outcome(call):
        inputs = [x.detach().requires_grad_() for x in tensors[:3]]
        layer.zero_grad()
        out = call(*inputs)
        out.backward(gradient)
        return [out.detach(), layer.weight.grad.clone(), *(x.grad for x in inputs)]

    for got, want in zip(outcome(wrap(layer)), outcome(layer), strict=True):
        torch.testing.assert_close(got, want)


def test_strided_norm_weights_mean_what_they_hold(device):
    tensors, _, options = build("one reference frame", torch.float32, device)
    plain = qk_norm_rope(*tensors[:2], q_weight=tensors[3], k_weight=tensors[4], **options, impl="triton")
    strided = [torch.stack([w, -w], -1)[:, 0] for w in tensors[3:]]
    got = qk_norm_rope(*tensors[:2], q_weight=strided[0], k_weight=strided[1], **options, impl="triton")
    for one, other in zip(got, plain, strict=True):
        assert torch.equal(one, other)


def test_a_gradient_that_is_one_row_repeated_is_read_right(device):
    """out.sum(1).backward() sends a gradient with stride 0 along L."""
    tensors, _, options = build("one reference frame", torch.float32, device)

    def gradients(way):
        inputs = [x.detach().requires_grad_() for x in tensors[:3]]
        out = shifted_rope_attention(*inputs, q_weight=tensors[3], k_weight=tensors[4], **options, impl="triton",
                                     backend="triton")  # fmt: skip
        way(out).backward()
        return [x.grad for x in inputs]

    wide = torch.ones_like(tensors[0])
    repeated = gradients(lambda out: out.sum(1).sum())
    for one, other in zip(repeated, gradients(lambda out: (out * wide).sum()), strict=True):
        torch.testing.assert_close(one, other)


def test_auto_runs_the_reference_for_a_head_dim_that_no_core_supports(device):
    tensors, _, options = build(dict(rope=Rope((1, 1, 3), 0)), torch.float32, device, heads=1, dim=130)
    with pytest.raises(UnavailableError, match="head dim of at most 128"):
        shifted_rope_attention(*tensors, **options, impl="triton", backend="triton")
    assert shifted_rope_attention(*tensors, **options).shape == tensors[0].shape
