"""VideoDiT, the paper's backbone of generator and editor (paper 3, B.1, B.2; Fig. 3).

B batch, C latent channels, f target frames, r reference frames, h w latent size, N = (h/2)(w/2) tokens a frame,
D hidden size, T audio rows. Tokens are [B, frames, N, D]: the timestep is one value a frame (0 on references
and on motion frames), so modulation is [B, frames, 1, D] and never materialised per token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.config import LORA_TARGETS, ModelConfig
from xdub.diffusion.flow_matching import frame_times, motion_frame_mask
from xdub.geometry import CodecGeometry
from xdub.model.attention import AudioAdapter
from xdub.model.backbone import Backbone
from xdub.model.block import Block, join_reference, split_reference
from xdub.model.checkpointing import run_block
from xdub.model.conditions import DiTConditions, Rows
from xdub.model.precondition import Precondition
from xdub_kernels import Rope


@dataclass(frozen=True, kw_only=True)
class DiTConfig(ModelConfig):
    """A recipe's section `model`, and the facts of codec, audio encoder and phase that fix the network's shapes."""

    geometry: CodecGeometry
    """Geometry of the codec: C latent channels, and the audio rows of a latent frame."""
    masked_input: bool
    """True for the generator: z_mask is concatenated to z_t on channels (B.2)."""
    audio_dim: int
    """Width of the audio encoder's features."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size={self.hidden_size} is not divisible by num_heads={self.num_heads}")
        if self.patch[0] != 1:
            raise ValueError(
                f"patch={self.patch}: a patch spans one latent frame, the first number must be 1"
            )


def timestep_sinusoid(steps: Tensor, frequencies: int) -> Tensor:
    """Return cosines, then sines, [..., 2 frequencies] fp32, of steps [...] in [0, 1000]."""
    index = torch.arange(frequencies, device=steps.device, dtype=torch.float32)
    angle = steps.float()[..., None] * torch.exp(-math.log(10000) * index / frequencies)
    return torch.cat((angle.cos(), angle.sin()), -1)


class TimestepEmbedding(nn.Module):
    """Sinusoid of 1000 t, then an MLP. t [...] -> [..., D]."""

    def __init__(self, hidden_size: int, frequencies: int = 128) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(
            nn.Linear(2 * frequencies, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, t: Tensor) -> Tensor:
        """Embed t [...] as [..., D] in the dtype of the weights."""
        sinusoid = timestep_sinusoid(1000 * t.float(), self.frequencies)
        return self.mlp(sinusoid.to(next(self.mlp.parameters()).dtype))


class VideoDiT(Backbone[DiTConditions]):
    """The paper's network: blocks of 2D, 3D, text and audio attention."""

    lora_targets = LORA_TARGETS["xdub"]
    parts = MappingProxyType(
        {
            "attention_2d": "projections",
            "attention_3d": "projections",
            "text": "text cross-attention",
            "audio": "audio cross-attention",
            "ffn": "FFN",
        }
    )
    self_attentions = MappingProxyType({"attention_2d": "2D attention", "attention_3d": "3D attention"})

    def __init__(self, cfg: DiTConfig, latent_std: Tensor | None = None) -> None:
        """Initialise randomly. ``latent_std`` [C]: the codec's channel deviations for `Precondition`; None: ones."""
        super().__init__(cfg.geometry, masked_input=cfg.masked_input, order=cfg.order)
        self.cfg = cfg
        size, (_, ph, pw), channels = cfg.hidden_size, cfg.patch, cfg.geometry.channels
        self.precondition = Precondition(
            torch.ones(channels) if latent_std is None else latent_std, cfg.linear_skip
        )
        self.patch_embed = nn.Linear(channels * (2 if cfg.masked_input else 1) * ph * pw, size)
        # Rows: target, reference.
        self.kind_embed = nn.Parameter(torch.zeros(2, size))
        self.timestep = TimestepEmbedding(size)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, 9 * size))
        self.null_text = nn.Parameter(torch.randn(cfg.text_tokens, size) * 0.02)
        self.text_proj = nn.Linear(cfg.text_dim, size) if cfg.text_dim else None
        self.audio_adapter = AudioAdapter(cfg.audio_dim, size, cfg.geometry.rows_per_latent)
        self.blocks = nn.ModuleList(Block(cfg) for _ in range(cfg.num_layers))
        self.norm_out = nn.LayerNorm(size, elementwise_affine=False)
        self.modulation_out = nn.Sequential(nn.SiLU(), nn.Linear(size, 2 * size))
        self.proj_out = nn.Linear(size, channels * ph * pw)
        self.init_weights()

    def init_weights(self) -> None:
        """Initialise all parameters: small residual branches, open gates, zero output."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
        for block in self._own_blocks():
            block.shrink_branches(1 / math.sqrt(2 * self.cfg.num_layers))
        nn.init.normal_(self.kind_embed, std=0.5)
        for linear in (self.modulation[1], self.modulation_out[1], self.proj_out):
            assert isinstance(linear, nn.Linear)
            nn.init.zeros_(linear.weight)

    def _own_blocks(self) -> list[Block]:
        """Return `blocks` under their own type."""
        return [block for block in self.blocks if isinstance(block, Block)]

    def conditions(
        self,
        z_ref: Tensor,
        audio: Tensor,
        starts: Tensor,
        *,
        z_mask: Tensor | None = None,
        motion_frames: Tensor | int = 0,
        audio_enabled: Tensor | None = None,
        text: Tensor | None = None,
        reuse: bool = True,
    ) -> DiTConditions:
        """Compute reference tokens, prompt, audio rows and, with ``reuse``, the keys and values of every block."""
        self._check_mask(z_mask)
        batch, dtype = z_ref.shape[0], self.patch_embed.weight.dtype
        rows = Rows(self._prompt(text, batch), self.audio_adapter(audio.to(dtype)), starts)
        clean_mask = None if z_mask is None else self._scale_clean(z_mask)
        share = None
        if reuse and clean_mask is not None:
            patches, (columns, _) = self.patches(clean_mask.to(dtype)), self._mask_columns()
            share = F.linear(patches, columns, self.patch_embed.bias) + self.kind_embed[0]
        return DiTConditions(
            reference=self._reference_tokens(z_ref),
            z_mask=None if reuse else clean_mask,
            masked=share,
            clean=motion_frame_mask(len(starts), motion_frames, batch).to(z_ref.device),
            audio_enabled=audio_enabled,
            blocks=tuple(block.prepared(rows) for block in self._own_blocks())
            if reuse
            else (rows,) * len(self.blocks),
        )

    def velocity(self, z_t: Tensor, t: Tensor, conditions: DiTConditions) -> Tensor:
        """Return v_hat [B, C, f, h, w] of z_t at t [B].

        Conditions with and without ``reuse`` lead to the same result up to rounding: one product of two inputs
        becomes the sum of two products, and one token's product replaces the equal products of all tokens.
        """
        rope = self._rope(z_t, conditions.reference.shape[1])
        times = frame_times(t.float(), conditions.clean)
        x = join_reference(self._target_tokens(z_t, times, conditions), conditions.reference, self.order)
        embedded, shared = self._modulation(times, rope.reference_frames)
        policy = self.checkpointing if self.training else "none"
        for block, keys in zip(self.blocks, conditions.blocks, strict=True):
            x = run_block(policy, block, x, shared, keys, conditions.audio_enabled, rope)
        return self._output(x, embedded, z_t, times, rope)

    def own_tensor(self, name: str, value: Tensor) -> tuple[str, Tensor] | None:
        """Drop the input columns of z_mask where an editor starts from a generator.

        Generator and editor share every other tensor: audio and reference pathways carry over.
        """
        columns = self.patch_embed.weight.shape[1]
        if name == "patch_embed.weight" and value.shape[1] == 2 * columns and not self.masked_input:
            # The columns are [z_mask, z_t].
            value = value[:, columns:]
        return name, value

    def _check_mask(self, z_mask: Tensor | None) -> None:
        if (z_mask is None) == self.masked_input:
            raise ValueError(
                f"z_mask must be given exactly when masked_input is set (it is {self.masked_input})"
            )

    def _rope(self, z_t: Tensor, reference_frames: int) -> Rope:
        """Return the positions of all tokens: target frames, rows and columns, and the references beside them (B.4)."""
        _, ph, pw = self.cfg.patch
        f, h, w = z_t.shape[2:]
        if h % ph or w % pw:
            raise ValueError(f"latent size {h}x{w} is not divisible by the patch {ph}x{pw}")
        return Rope((f, h // ph, w // pw), reference_frames, self.order)

    def _target_tokens(self, z_t: Tensor, times: Tensor, conditions: DiTConditions) -> Tensor:
        """Embed z_t [B, C, f, h, w] at times [B, f], with z_mask on further channels, as tokens [B, f, N, D] (B.2)."""
        target = self.precondition.scale_in(z_t, times)
        if conditions.z_mask is not None:
            # z_in = [[z_mask, z_t], [0, z_ref]]
            target = torch.cat((conditions.z_mask, target), 1)
        patches = self.patches(target.to(self.patch_embed.weight.dtype))
        if conditions.masked is None:
            return self.patch_embed(patches) + self.kind_embed[0]
        return F.linear(patches, self._mask_columns()[1]) + conditions.masked

    def _scale_clean(self, z: Tensor) -> Tensor:
        """Scale latents [B, C, f, h, w] without noise as the network reads them."""
        return self.precondition.scale_in(z, z.new_zeros(z.shape[0], z.shape[2]))

    def _reference_tokens(self, z_ref: Tensor) -> Tensor:
        """Embed z_ref [B, C, r, h, w] as tokens [B, r, N, D]; references have zeros in place of z_mask (B.2)."""
        z = self._scale_clean(z_ref)
        if self.masked_input:
            z = torch.cat((torch.zeros_like(z), z), 1)
        return self.patch_embed(self.patches(z.to(self.patch_embed.weight.dtype))) + self.kind_embed[1]

    def _mask_columns(self) -> tuple[Tensor, Tensor]:
        """Return the columns of the patch embedding that read z_mask and those that read z_t, each [D, C p q]."""
        z_mask, z_t = self.patch_embed.weight.chunk(2, 1)
        return z_mask, z_t

    def _prompt(self, text: Tensor | None, batch: int) -> Tensor:
        """Return the prompt's rows [B, S, D]. Raise ValueError for text that the network has no projection for."""
        if text is None:
            return self.null_text.expand(batch, -1, -1)
        if self.text_proj is None:
            raise ValueError("text needs model.text_dim, the width of its embedding")
        return self.text_proj(text)

    def _modulation(self, times: Tensor, reference_frames: int) -> tuple[Tensor, Tensor]:
        """Embed times [B, f] as [B, f+r, D] and modulation [B, f+r, 9, D]; references are at t = 0."""
        reference = times.new_zeros(times.shape[0], reference_frames)
        embedded = self.timestep(join_reference(times, reference, self.order))
        return embedded, rearrange(self.modulation(embedded), "b f (k d) -> b f k d", k=9)

    def _output(self, x: Tensor, embedded: Tensor, z_t: Tensor, times: Tensor, rope: Rope) -> Tensor:
        """Return v_hat of the last block's tokens x [B, f+r, N, D], those of this rank."""
        target, _ = split_reference(x, rope.reference_frames, self.order)
        emb_target, _ = split_reference(embedded, rope.reference_frames, self.order)
        shift, scale = self.modulation_out(emb_target).unsqueeze(-2).chunk(2, -1)
        out = self.proj_out(self.norm_out(target) * (1 + scale) + shift)
        patches = self.group.all_tokens(out, rope.grid[1] * rope.grid[2])
        return self.precondition.combine(self.unpatchify(patches, rope.grid).float(), z_t.float(), times)

    def patches(self, z: Tensor) -> Tensor:
        """Cut latents [B, C, f, h, w] into patches [B, f, N, C p q], and return those of this rank."""
        _, ph, pw = self.cfg.patch
        return self.group.own_tokens(rearrange(z, "b c f (h p) (w q) -> b f (h w) (c p q)", p=ph, q=pw))

    def unpatchify(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """Join patches [B, f, N, C p q] to latents [B, C, f, h, w]."""
        _, ph, pw = self.cfg.patch
        return rearrange(x, "b f (h w) (c p q) -> b c f (h p) (w q)", h=grid[1], p=ph, q=pw)
