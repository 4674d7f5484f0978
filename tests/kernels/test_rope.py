"""Rope: its checks, its hash, and its use in operators and compiled code."""

from __future__ import annotations

import pytest
import torch

from xdub_kernels import Rope, qk_norm_rope, shifted_rope_attention
from xdub_kernels.testing import attention_inputs, normal

MISTAKES = {
    "grid": dict(grid=(2, 6)),
    "grid zero": dict(grid=(0, 2, 3)),
    "reference_frames": dict(grid=(3, 2, 3), reference_frames=2),
    "order": dict(order="middle"),
    "share": dict(share=(2, 2)),
    "share without a count": dict(share=(0,)),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_wrong_field_is_named_when_the_value_is_built(mistake):
    with pytest.raises(ValueError, match=rf"^{mistake.split()[0]} must be"):
        Rope(**(dict(grid=(2, 2, 3), reference_frames=1) | MISTAKES[mistake]))


def test_equal_ropes_share_a_hash_whatever_sequence_they_were_built_from():
    rope = Rope([2, 2, 3], 1, axes_dim=[4, 4, 4])
    assert rope == Rope((2, 2, 3), 1, axes_dim=(4, 4, 4)) and hash(rope) == hash(Rope.unflatten(*rope.flat()))
    assert len({rope, Rope.unflatten(*rope.flat()), Rope((2, 2, 3), 1)}) == 2


def test_tokens_count_target_and_reference():
    assert [Rope((5, 2, 3), n).tokens for n in (0, 1, 5)] == [30, 36, 60]


@pytest.mark.parametrize("order", ["target_first", "reference_first"])
@pytest.mark.parametrize("count", [2, 4, 5])
def test_the_shares_of_a_sequence_are_rotated_as_the_whole(count, order):
    whole = Rope((3, 3, 4), 1, order=order)
    q, k, _ = attention_inputs(2, whole, 2, 12)
    weights = dict(q_weight=normal((24,), 3, torch.float32), k_weight=normal((24,), 4, torch.float32))
    expected = qk_norm_rope(q, k, whole, norm="hidden", **weights)
    for index in range(count):
        rope = Rope((3, 3, 4), 1, order=order, share=(index, count))
        run = torch.arange(rope.offset, rope.offset + rope.per_frame)

        def cut(x, run=run):
            return x.unflatten(1, (4, 12))[:, :, run.clamp_max(11)].flatten(1, 2)

        assert rope.tokens == 4 * -(-12 // count)
        for got, want in zip(
            qk_norm_rope(cut(q), cut(k), rope, norm="hidden", **weights), expected, strict=True
        ):
            torch.testing.assert_close(got, cut(want), rtol=0, atol=0)


def test_attention_refuses_a_share_of_the_tokens():
    rope = Rope((1, 2, 3), 0, share=(0, 2))
    with pytest.raises(ValueError, match="^rope must hold all tokens"):
        shifted_rope_attention(*attention_inputs(1, rope, 2, 12), rope)


def test_axes_are_those_given_or_the_split_of_released_checkpoints():
    assert Rope((1, 1, 1), 0).axes(128) == (44, 42, 42)
    assert Rope((1, 1, 1), 0, axes_dim=(0, 8, 6)).axes(14) == (0, 8, 6)
    with pytest.raises(ValueError, match="^axes_dim must be"):
        Rope((1, 1, 1), 0, axes_dim=(0, 8, 6)).axes(16)


def test_a_rope_may_be_built_inside_compiled_code_and_passed_to_it():
    rope, share = Rope((3, 5, 5), 1), Rope((3, 5, 5), 1, share=(1, 2))
    q, k, v = attention_inputs(1, rope, 2, 12)
    part = attention_inputs(1, share, 2, 12)[:2]

    def build_inside(q, k, v):
        return shifted_rope_attention(q, k, v, Rope((3, 5, 5), 1), norm="head")

    def passed(q, k, rope):
        return qk_norm_rope(q, k, rope)[0]

    expected = build_inside(q, k, v), passed(*part, share)
    compiled = (torch.compile(f, backend="aot_eager", fullgraph=True) for f in (build_inside, passed))
    for function, arguments, want in zip(compiled, ((q, k, v), (*part, share)), expected, strict=True):
        torch.testing.assert_close(function(*arguments), want)
