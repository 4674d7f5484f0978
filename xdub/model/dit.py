"""VideoDiT, the backbone of generator and editor (paper 3, B.1, B.2; Fig. 3).

B batch, C latent channels, f target frames, r reference frames, h w latent size, N = (h/2)(w/2) tokens a frame,
D hidden size, T audio rows. Tokens travel as [B, frames, N, D]: the timestep is one value a frame (0 on references
and on motion frames), so modulation is [B, frames, 1, D] and never materialised per token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.config import ModelConfig
from xdub.diffusion.flow_matching import motion_frame_mask
from xdub.geometry import CodecGeometry
from xdub.model.audio_adapter import AudioAdapter
from xdub.model.block import Block, join_reference, split_reference
from xdub.model.checkpointing import run_block
from xdub.model.conditions import Conditions
from xdub.model.precondition import Precondition


@dataclass(frozen=True, kw_only=True)
class DiTConfig(ModelConfig):
    """A recipe's section `model`, and the facts of codec, audio encoder and phase that fix the network's shapes."""

    geometry: CodecGeometry
    """The codec's: C latent channels, and the audio rows of a latent frame."""
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


class TimestepEmbedding(nn.Module):
    """Sinusoid of 1000 t, then an MLP. t [...] -> [..., D]."""

    def __init__(self, hidden_size: int, frequencies: int = 128) -> None:
        super().__init__()
        self.frequencies = frequencies
        self.mlp = nn.Sequential(
            nn.Linear(2 * frequencies, hidden_size), nn.SiLU(), nn.Linear(hidden_size, hidden_size)
        )

    def forward(self, t: Tensor) -> Tensor:
        steps = torch.arange(self.frequencies, device=t.device, dtype=torch.float32)
        angle = 1000 * t.float()[..., None] * torch.exp(-math.log(10000) * steps / self.frequencies)
        return self.mlp(torch.cat((angle.cos(), angle.sin()), -1).to(self.mlp[0].weight.dtype))


class VideoDiT(nn.Module):
    """Predicts v = eps - z_0 of the target frames (Eq. 5)."""

    def __init__(self, cfg: DiTConfig, latent_std: Tensor | None = None) -> None:
        """``latent_std`` [C]: the codec's channel standard deviations, for the preconditioning (ones if not given)."""
        super().__init__()
        self.cfg = cfg
        self.checkpointing = "none"
        """One of `xdub.model.checkpointing.POLICIES`; it acts in train mode only."""
        size, (_, ph, pw), channels = cfg.hidden_size, cfg.patch, cfg.geometry.channels
        self.precondition = Precondition(
            torch.ones(channels) if latent_std is None else latent_std, cfg.linear_skip
        )
        self.patch_embed = nn.Linear(channels * (2 if cfg.masked_input else 1) * ph * pw, size)
        self.kind_embed = nn.Parameter(torch.zeros(2, size))  # target, reference
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
        """All initialisation in one place: small residual branches, open gates, zero output."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.normal_(module.weight, std=1 / math.sqrt(module.in_features))
                nn.init.zeros_(module.bias)
        branch = 1 / math.sqrt(2 * self.cfg.num_layers)
        for block in self.blocks:
            outs = (
                block.attention_2d.out,
                block.attention_3d.out,
                block.text.out,
                block.audio.out,
                block.ffn[2],
            )
            for out in outs:
                out.weight.data.mul_(branch)
            block.table.data[2::3].fill_(1.0)
        nn.init.normal_(self.kind_embed, std=0.5)
        for linear in (self.modulation[1], self.modulation_out[1], self.proj_out):
            nn.init.zeros_(linear.weight)

    def forward(
        self,
        z_t: Tensor,
        z_ref: Tensor,
        t: Tensor,
        audio: Tensor,
        starts: Tensor,
        *,
        z_mask: Tensor | None = None,
        motion_frames: Tensor | int = 0,
        audio_enabled: Tensor | None = None,
        text: Tensor | None = None,
    ) -> Tensor:
        """v_hat [B, C, f, h, w].

        z_t [B, C, f, h, w] noised target (motion frames clean); z_ref [B, C, r, h, w] with r = f (editor) or 1
        (generator); t [B] in [0, 1]; audio [B, T, audio_dim]; starts [f] first audio row of each latent frame;
        z_mask [B, C, f, h, w] for a generator; motion_frames int or [B]; audio_enabled [B] bool; text [B, S, text_dim].
        """
        self._check_mask(z_mask)
        batch, _, f, _, _ = z_t.shape
        grid, r, order = self._grid(z_t), z_ref.shape[2], self.cfg.order
        clean = motion_frame_mask(f, motion_frames, batch).to(z_t.device)
        t_target = t.float()[:, None].expand(batch, f).masked_fill(clean, 0.0)  # [B, f]

        target_in = self.precondition.scale_in(z_t, t_target)
        if z_mask is not None:  # z_in = [[z_mask, z_t], [0, z_ref]] (B.2)
            target_in = torch.cat((self._scale_clean(z_mask), target_in), 1)
        dtype = self.patch_embed.weight.dtype
        x = self.patch_embed(self.patches(target_in.to(dtype))) + self.kind_embed[0]
        x = join_reference(x, self._reference_tokens(z_ref), order)

        embedded, shared = self._modulation(t_target, r)
        prompt = self._prompt(text, batch)
        rows = self.audio_adapter(audio.to(dtype))
        for block in self.blocks:
            arguments = (x, shared, prompt, rows, starts, audio_enabled, grid, r)
            x = run_block(self.checkpointing if self.training else "none", block, *arguments)
        return self._velocity(x, embedded, z_t, t_target, grid, r)

    def prepare(
        self,
        z_ref: Tensor,
        audio: Tensor,
        starts: Tensor,
        *,
        z_mask: Tensor | None = None,
        motion_frames: Tensor | int = 0,
        audio_enabled: Tensor | None = None,
        text: Tensor | None = None,
    ) -> Conditions:
        """Everything in `forward` that z_t and t have no part in, for `denoise`; arguments as there. For sampling."""
        self._check_mask(z_mask)
        batch, dtype = z_ref.shape[0], self.patch_embed.weight.dtype
        masked = None
        if z_mask is not None:
            patches = self.patches(self._scale_clean(z_mask).to(dtype))
            masked = F.linear(patches, self._mask_columns()[0], self.patch_embed.bias) + self.kind_embed[0]
        prompt, rows = self._prompt(text, batch), self.audio_adapter(audio.to(dtype))
        return Conditions(
            reference=self._reference_tokens(z_ref),
            masked=masked,
            clean=motion_frame_mask(len(starts), motion_frames, batch).to(z_ref.device),
            audio_enabled=audio_enabled,
            blocks=tuple(block.prepared(prompt, rows, starts) for block in self.blocks),
        )

    def denoise(self, z_t: Tensor, t: Tensor, given: Conditions) -> Tensor:
        """v_hat [B, C, f, h, w] of z_t [B, C, f, h, w] at t [B]: `forward`'s, but for rounding where one product of two
        inputs became the sum of two products, or one token's product stands for all tokens'."""
        batch, _, f, _, _ = z_t.shape
        grid, r, order = self._grid(z_t), given.reference.shape[1], self.cfg.order
        t_target = t.float()[:, None].expand(batch, f).masked_fill(given.clean, 0.0)  # [B, f]
        patches = self.patches(self.precondition.scale_in(z_t, t_target).to(self.patch_embed.weight.dtype))
        if given.masked is None:
            x = self.patch_embed(patches) + self.kind_embed[0]
        else:
            x = F.linear(patches, self._mask_columns()[1]) + given.masked
        x = join_reference(x, given.reference, order)
        embedded, shared = self._modulation(t_target, r)
        for block, conditions in zip(self.blocks, given.blocks, strict=True):
            x = block.denoise(x, shared, conditions, given.audio_enabled, grid, r)
        return self._velocity(x, embedded, z_t, t_target, grid, r)

    def _check_mask(self, z_mask: Tensor | None) -> None:
        if (z_mask is None) == self.cfg.masked_input:
            raise ValueError(
                f"z_mask must be given exactly when masked_input is set (it is {self.cfg.masked_input})"
            )

    def _grid(self, z_t: Tensor) -> tuple[int, int, int]:
        """Target frames, and rows and columns of tokens."""
        _, ph, pw = self.cfg.patch
        f, h, w = z_t.shape[2:]
        if h % ph or w % pw:
            raise ValueError(f"latent size {h}x{w} is not divisible by the patch {ph}x{pw}")
        return f, h // ph, w // pw

    def _scale_clean(self, z: Tensor) -> Tensor:
        """Latents [B, C, f, h, w] without noise, as the network sees them."""
        return self.precondition.scale_in(z, z.new_zeros(z.shape[0], z.shape[2]))

    def _reference_tokens(self, z_ref: Tensor) -> Tensor:
        """[B, C, r, h, w] -> [B, r, N, D]; where a target has z_mask, references have zeros (B.2)."""
        z = self._scale_clean(z_ref)
        if self.cfg.masked_input:
            z = torch.cat((torch.zeros_like(z), z), 1)
        return self.patch_embed(self.patches(z.to(self.patch_embed.weight.dtype))) + self.kind_embed[1]

    def _mask_columns(self) -> tuple[Tensor, Tensor]:
        """Columns of the patch embedding that read z_mask, and those that read z_t; each [D, C p q]."""
        z_mask, z_t = self.patch_embed.weight.chunk(2, 1)
        return z_mask, z_t

    def _prompt(self, text: Tensor | None, batch: int) -> Tensor:
        """[B, S, D]"""
        return self.null_text.expand(batch, -1, -1) if text is None else self.text_proj(text)

    def _modulation(self, t_target: Tensor, reference_frames: int) -> tuple[Tensor, Tensor]:
        """t_target [B, f] -> embedding [B, f+r, D] and modulation [B, f+r, 9, D], references' at t = 0 included."""
        t_reference = t_target.new_zeros(t_target.shape[0], reference_frames)
        embedded = self.timestep(join_reference(t_target, t_reference, self.cfg.order))
        return embedded, rearrange(self.modulation(embedded), "b f (k d) -> b f k d", k=9)

    def _velocity(
        self,
        x: Tensor,
        embedded: Tensor,
        z_t: Tensor,
        t_target: Tensor,
        grid: tuple[int, int, int],
        reference_frames: int,
    ) -> Tensor:
        """The last block's tokens x [B, f+r, N, D] -> v_hat."""
        target, _ = split_reference(x, reference_frames, self.cfg.order)
        emb_target, _ = split_reference(embedded, reference_frames, self.cfg.order)
        shift, scale = self.modulation_out(emb_target).unsqueeze(-2).chunk(2, -1)
        out = self.proj_out(self.norm_out(target) * (1 + scale) + shift)
        return self.precondition.combine(self.unpatchify(out, grid).float(), z_t.float(), t_target)

    def patches(self, z: Tensor) -> Tensor:
        """[B, C, f, h, w] -> [B, f, N, C p q]"""
        _, ph, pw = self.cfg.patch
        return rearrange(z, "b c f (h p) (w q) -> b f (h w) (c p q)", p=ph, q=pw)

    def unpatchify(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """[B, f, N, C p q] -> [B, C, f, h, w]"""
        _, ph, pw = self.cfg.patch
        return rearrange(x, "b f (h w) (c p q) -> b c f (h p) (w q)", h=grid[1], p=ph, q=pw)
