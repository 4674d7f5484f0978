"""Every matrix product of one sample through the backbone, in the order in which it happens.

A product knows its cost forwards and backwards. Which gradients exist follows from what a phase trains: an expert
trains adapters on a frozen editor, so no weight of the editor has a
gradient, nor has anything before the first adapter.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from xdub.config import Recipe, expert_of, inpaints
from xdub.geometry import AUDIO_WINDOW
from xdub.plan.shapes import Shapes, shapes

TIME_FREQUENCIES = 256
"""Cosines and sines of the timestep embedding."""
CONV_TAPS = 5
"""Of the audio adapter's two temporal convolutions."""


@dataclass(frozen=True, kw_only=True)
class Linear:
    """``rows`` vectors through one weight matrix, with a LoRA adapter of ``rank`` beside it if that is not 0."""

    part: str
    rows: int
    inputs: int
    outputs: int
    weight_grad: bool
    """The matrix itself is trained."""
    input_grad: bool
    """What comes in needs a gradient."""
    rank: int = 0
    in_block: bool = True

    @property
    def forward(self) -> int:
        """FLOP: 2 for every multiplication with addition."""
        return 2 * self.rows * (self.inputs * self.outputs + self.rank * (self.inputs + self.outputs))

    @property
    def backward(self) -> int:
        """FLOP of the gradients that somebody needs."""
        base = 2 * self.rows * self.inputs * self.outputs * (self.weight_grad + self.input_grad)
        down = 2 * self.rows * self.inputs * self.rank * (1 + self.input_grad)
        up = 2 * self.rows * self.rank * self.outputs * 2
        return base + down + up


@dataclass(frozen=True, kw_only=True)
class Attention:
    """softmax(q k^T) v: ``batch`` times ``queries`` x ``keys`` over ``width`` channels of all heads."""

    part: str
    batch: int
    queries: int
    keys: int
    width: int
    query_grad: bool
    key_grad: bool
    """Keys and values need a gradient."""
    in_block: bool = True

    @property
    def forward(self) -> int:
        """FLOP of the two products."""
        return 4 * self.batch * self.queries * self.keys * self.width

    @property
    def backward(self) -> int:
        """FLOP of the products that somebody needs: dp; dq from it; dk from it, and dv."""
        count = (self.query_grad or self.key_grad) + self.query_grad + 2 * self.key_grad
        return count * self.forward // 2

    @property
    def rescored(self) -> int:
        """FLOP of q k^T once more, which a fused backward does instead of keeping the scores."""
        return self.forward // 2 if self.backward else 0


Product = Linear | Attention


def products(recipe: Recipe, phase: str) -> list[Product]:
    """All products of one sample of a phase."""
    return list(_Walk(recipe, phase).all())


class _Walk:
    """Walks through VideoDiT as its forward does; ``flows`` says whether the tokens need a gradient by now."""

    def __init__(self, recipe: Recipe, phase: str) -> None:
        self.recipe, self.shapes = recipe, shapes(recipe, phase)
        self.masked = inpaints(phase)
        self.expert = expert_of(phase) is not None
        self.flows = not self.expert

    def linear(
        self,
        part: str,
        name: str,
        rows: int,
        inputs: int,
        outputs: int,
        *,
        input_grad: bool,
        block: bool = True,
    ) -> Linear:
        lora = self.recipe.lora
        adapted = self.expert and block and any(f".{name}".endswith(f".{target}") for target in lora.targets)
        return Linear(
            part=part,
            rows=rows,
            inputs=inputs,
            outputs=outputs,
            weight_grad=not self.expert,
            input_grad=input_grad,
            rank=lora.rank if adapted else 0,
            in_block=block,
        )

    def all(self) -> Iterator[Product]:
        model, s, trained = self.recipe.model, self.shapes, not self.expert
        size, (_, rows, columns) = model.hidden_size, model.patch
        patch = self.recipe.codec.channels * rows * columns

        def outer(part: str, count: int, inputs: int, outputs: int, input_grad: bool) -> Linear:
            return self.linear(part, "", count, inputs, outputs, input_grad=input_grad, block=False)

        embed = "embedding and output"
        yield outer(embed, s.tokens, patch * (2 if self.masked else 1), size, False)
        yield outer(embed, s.total, TIME_FREQUENCIES, size, False)
        yield outer(embed, s.total, size, size, trained)
        yield outer(embed, s.total, size, 9 * size, trained)
        yield outer(embed, s.audio, self.recipe.audio.dim, size, False)
        for _ in range(2):
            yield outer(embed, s.audio, CONV_TAPS * size, size, trained)
        for _ in range(model.num_layers):
            yield from self.block(s, size)
        yield outer(embed, s.target, size, 2 * size, trained)
        yield outer(embed, s.target * s.per_frame, size, patch, self.flows)

    def block(self, s: Shapes, size: int) -> Iterator[Product]:
        every, target = s.tokens, s.target * s.per_frame
        grids = (("2D attention", s.total, s.per_frame), ("3D attention", 1, s.tokens))
        for part, batch, length in grids:
            name = "attention_2d" if batch > 1 else "attention_3d"
            qkv = self.linear("projections", f"{name}.qkv", every, size, 3 * size, input_grad=self.flows)
            yield qkv
            grad = self.advance(qkv)
            yield Attention(
                part=part,
                batch=batch,
                queries=length,
                keys=length,
                width=size,
                query_grad=grad,
                key_grad=grad,
            )
            yield (out := self.linear("projections", f"{name}.out", every, size, size, input_grad=self.flows))
            self.advance(out)
        text = self.recipe.model.text_tokens
        for name, keys, rows in (("text", text, text), ("audio", AUDIO_WINDOW, s.audio)):
            part = f"{name} cross-attention"
            q = self.linear(part, f"{name}.q", target, size, size, input_grad=self.flows)
            kv = self.linear(part, f"{name}.kv", rows, size, 2 * size, input_grad=not self.expert)
            yield from (q, kv)
            batch = 1 if name == "text" else s.target
            yield Attention(
                part=part,
                batch=batch,
                queries=target // batch,
                keys=keys,
                width=size,
                query_grad=self.advance(q),
                key_grad=kv.weight_grad or kv.rank > 0,
            )
            self.advance(kv)
            yield (out := self.linear(part, f"{name}.out", target, size, size, input_grad=self.flows))
            self.advance(out)
        inner = int(self.recipe.model.ffn_ratio * size)
        for name, inputs, outputs in (("ffn.0", size, inner), ("ffn.2", inner, size)):
            yield (ffn := self.linear("FFN", name, every, inputs, outputs, input_grad=self.flows))
            self.advance(ffn)

    def advance(self, layer: Linear) -> bool:
        """Behind a layer that trains something the tokens need a gradient."""
        self.flows = self.flows or layer.weight_grad or layer.rank > 0
        return self.flows
