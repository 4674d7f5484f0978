"""How many parameters a phase has, trained and frozen, from the recipe's numbers alone."""

from __future__ import annotations

from dataclasses import dataclass

from xdub.config import Recipe, expert_of, inpaints
from xdub.plan.products import CONV_TAPS, TIME_FREQUENCIES


@dataclass(frozen=True, kw_only=True)
class Parameters:
    """Numbers of parameters of the network that a phase trains."""

    trained: int
    frozen: int
    """The editor under an expert's adapter."""
    block: int
    """Of one block without adapters: what ZeRO-3 gathers at a time."""

    @property
    def total(self) -> int:
        return self.trained + self.frozen


def parameters(recipe: Recipe, phase: str) -> Parameters:
    """Parameters of a phase's network."""
    model, size = recipe.model, recipe.model.hidden_size
    patch = recipe.codec.channels * model.patch[1] * model.patch[2]
    block = sum(_linear(*shape) for shape in _block_linears(recipe).values())
    block += (
        2 * 2 * (size // model.num_heads) + 2 * 2 * size + 9 * size
    )  # q/k norms; two LayerNorms; adaLN table
    outside = (
        _linear(patch * (2 if inpaints(phase) else 1), size)
        + 2 * size  # kind of token
        + _linear(TIME_FREQUENCIES, size)
        + _linear(size, size)
        + _linear(size, 9 * size)
        + model.text_tokens * size
        + (_linear(model.text_dim, size) if model.text_dim else 0)
        + _audio_adapter(recipe.audio.dim, size)
        + _linear(size, 2 * size)
        + _linear(size, patch)
    )
    total = outside + model.num_layers * block
    if expert_of(phase) is None:
        return Parameters(trained=total, frozen=0, block=block)
    adapted = [
        shape
        for name, shape in _block_linears(recipe).items()
        if any(name.endswith(f".{target}") for target in recipe.lora.targets)
    ]
    adapter = model.num_layers * sum(recipe.lora.rank * (inputs + outputs) for inputs, outputs in adapted)
    return Parameters(trained=adapter, frozen=total, block=block)


def _linear(inputs: int, outputs: int) -> int:
    return inputs * outputs + outputs


def _audio_adapter(audio_dim: int, size: int) -> int:
    convolutions = 2 * _linear(CONV_TAPS * size, size)
    return _linear(audio_dim, size) + 8 * size + convolutions + 3 * 2 * size


def _block_linears(recipe: Recipe) -> dict[str, tuple[int, int]]:
    """name in the block -> (inputs, outputs)"""
    size, inner = recipe.model.hidden_size, int(recipe.model.ffn_ratio * recipe.model.hidden_size)
    own = {f".{kind}.qkv": (size, 3 * size) for kind in ("attention_2d", "attention_3d")}
    cross = {f".{kind}.q": (size, size) for kind in ("text", "audio")}
    cross |= {f".{kind}.kv": (size, 2 * size) for kind in ("text", "audio")}
    outs = {f".{kind}.out": (size, size) for kind in ("attention_2d", "attention_3d", "text", "audio")}
    return own | cross | outs | {".ffn.0": (size, inner), ".ffn.2": (inner, size)}
