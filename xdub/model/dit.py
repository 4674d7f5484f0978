"""VideoDiT, the backbone of generator and editor (paper 3, B.1, B.2; Fig. 3).

B batch, C latent channels, f target frames, r reference frames, h w latent size, N = (h/2)(w/2) tokens a frame,
D hidden size, T audio rows. Tokens travel as [B, frames, N, D]: the timestep is one value a frame (0 on references
and on motion frames), so modulation is [B, frames, 1, D] and never materialised per token.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from xdub.diffusion.flow_matching import motion_frame_mask
from xdub.model.attention import AudioCrossAttention, SelfAttention, TextCrossAttention
from xdub.model.audio_adapter import AudioAdapter
from xdub.model.checkpointing import run_block
from xdub.model.precondition import Precondition


@dataclass(frozen=True, kw_only=True)
class DiTConfig:
    """Everything that fixes the backbone's parameters and shapes."""

    latent_channels: int
    """C of the codec."""
    masked_input: bool
    """True for the generator: z_mask is concatenated to z_t on channels (B.2)."""
    audio_dim: int
    """Width of the audio encoder's features."""
    hidden_size: int = 192
    num_heads: int = 6
    num_layers: int = 6
    ffn_ratio: float = 4.0
    patch: tuple[int, int, int] = (1, 2, 2)
    text_tokens: int = 1
    """Length of the learned null prompt."""
    text_dim: int | None = None
    """Width of given text embeddings, e.g. UMT5's 4096; None when only the null prompt is used."""
    order: str = "target_first"
    linear_skip: bool = True
    """Add the best linear guess of v from z_t and the codec's channel statistics; the network learns the rest."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_heads:
            raise ValueError(f"hidden_size={self.hidden_size} is not divisible by num_heads={self.num_heads}")
        if self.patch[0] != 1:
            raise ValueError(
                f"patch={self.patch}: a patch spans one latent frame, the first number must be 1"
            )
        if self.order not in ("target_first", "reference_first"):
            raise ValueError(f"order={self.order!r}: use 'target_first' or 'reference_first'")


@dataclass(frozen=True)
class Modulation:
    """adaLN values of one sublayer, each [B, F, 1, D]."""

    shift: Tensor
    scale: Tensor
    gate: Tensor

    def apply(self, x: Tensor) -> Tensor:
        """Modulated input of the sublayer."""
        return x * (1 + self.scale) + self.shift


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


class Block(nn.Module):
    """2D attention -> 3D attention -> text -> audio -> FFN (B.1, B.2)."""

    def __init__(self, cfg: DiTConfig) -> None:
        super().__init__()
        size, heads = cfg.hidden_size, cfg.num_heads
        self.order = cfg.order
        self.norm_2d, self.norm_3d, self.norm_ffn = (
            nn.LayerNorm(size, elementwise_affine=False) for _ in range(3)
        )
        self.norm_text, self.norm_audio = nn.LayerNorm(size), nn.LayerNorm(size)
        self.attention_2d = SelfAttention(size, heads, spatial=True, order=cfg.order)
        self.attention_3d = SelfAttention(size, heads, spatial=False, order=cfg.order)
        self.text = TextCrossAttention(size, heads)
        self.audio = AudioCrossAttention(size, heads)
        inner = int(cfg.ffn_ratio * size)
        self.ffn = nn.Sequential(nn.Linear(size, inner), nn.GELU(approximate="tanh"), nn.Linear(inner, size))
        self.table = nn.Parameter(torch.zeros(9, size))  # added to the shared modulation

    def forward(
        self,
        x: Tensor,
        shared: Tensor,
        text: Tensor,
        audio: Tensor,
        starts: Tensor,
        enabled: Tensor | None,
        grid: tuple[int, int, int],
        reference_frames: int,
    ) -> Tensor:
        """x [B, f+r, N, D], shared [B, f+r, 9, D] -> [B, f+r, N, D]."""
        values = (shared + self.table.to(shared.dtype)).unsqueeze(-2).unbind(2)
        mod_2d, mod_3d, mod_ffn = (Modulation(*values[i : i + 3]) for i in (0, 3, 6))
        x = x + mod_2d.gate * self.attention_2d(mod_2d.apply(self.norm_2d(x)), grid, reference_frames)
        x = x + mod_3d.gate * self.attention_3d(mod_3d.apply(self.norm_3d(x)), grid, reference_frames)
        target, reference = split_reference(x, reference_frames, self.order)
        target = target + self.text(self.norm_text(target), text)
        target = target + self.audio(self.norm_audio(target), audio, starts, enabled)
        x = join_reference(target, reference, self.order)
        return x + mod_ffn.gate * self.ffn(mod_ffn.apply(self.norm_ffn(x)))


def split_reference(x: Tensor, reference_frames: int, order: str) -> tuple[Tensor, Tensor]:
    """[B, f+r, ...] -> target [B, f, ...], reference [B, r, ...]."""
    if order == "target_first":
        return x[:, : x.shape[1] - reference_frames], x[:, x.shape[1] - reference_frames :]
    return x[:, reference_frames:], x[:, :reference_frames]


def join_reference(target: Tensor, reference: Tensor, order: str) -> Tensor:
    """Inverse of :func:`split_reference`."""
    return torch.cat((target, reference) if order == "target_first" else (reference, target), 1)


class VideoDiT(nn.Module):
    """Predicts v = eps - z_0 of the target frames (Eq. 5)."""

    def __init__(self, cfg: DiTConfig, latent_std: Tensor | None = None) -> None:
        """``latent_std`` [C]: the codec's channel standard deviations, for the preconditioning (ones if not given)."""
        super().__init__()
        self.cfg = cfg
        self.checkpointing = "none"
        """One of `xdub.model.checkpointing.POLICIES`; it acts in train mode only."""
        size, (_, ph, pw), channels = cfg.hidden_size, cfg.patch, cfg.latent_channels
        self.precondition = Precondition(
            torch.ones(channels) if latent_std is None else latent_std, cfg.linear_skip
        )
        self.patch_embed = nn.Linear(channels * (2 if cfg.masked_input else 1) * ph * pw, size)
        self.kind_embed = nn.Parameter(torch.zeros(2, size))  # target, reference
        self.timestep = TimestepEmbedding(size)
        self.modulation = nn.Sequential(nn.SiLU(), nn.Linear(size, 9 * size))
        self.null_text = nn.Parameter(torch.randn(cfg.text_tokens, size) * 0.02)
        self.text_proj = nn.Linear(cfg.text_dim, size) if cfg.text_dim else None
        self.audio_adapter = AudioAdapter(cfg.audio_dim, size)
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
        if (z_mask is None) == self.cfg.masked_input:
            raise ValueError(
                f"z_mask must be given exactly when masked_input is set (it is {self.cfg.masked_input})"
            )
        _, ph, pw = self.cfg.patch
        batch, _, f, h, w = z_t.shape
        if h % ph or w % pw:
            raise ValueError(f"latent size {h}x{w} is not divisible by the patch {ph}x{pw}")
        grid, r, order = (f, h // ph, w // pw), z_ref.shape[2], self.cfg.order

        clean = motion_frame_mask(f, motion_frames, batch).to(z_t.device)
        t_target = t.float()[:, None].expand(batch, f).masked_fill(clean, 0.0)  # [B, f]
        t_all = join_reference(t_target, t_target.new_zeros(batch, r), order)

        target_in = self.precondition.scale_in(z_t, t_target)
        reference_in = self.precondition.scale_in(z_ref, z_ref.new_zeros(batch, r))
        if z_mask is not None:  # z_in = [[z_mask, z_t], [0, z_ref]] (B.2)
            masked = self.precondition.scale_in(z_mask, torch.zeros_like(t_target))
            target_in = torch.cat((masked, target_in), 1)
            reference_in = torch.cat((torch.zeros_like(reference_in), reference_in), 1)
        dtype = self.patch_embed.weight.dtype
        x = join_reference(
            self.patchify(target_in.to(dtype)) + self.kind_embed[0],
            self.patchify(reference_in.to(dtype)) + self.kind_embed[1],
            order,
        )

        embedded = self.timestep(t_all)  # [B, f+r, D]
        shared = rearrange(self.modulation(embedded), "b f (k d) -> b f k d", k=9)
        prompt = self.null_text.expand(batch, -1, -1) if text is None else self.text_proj(text)
        rows = self.audio_adapter(audio.to(dtype))
        for block in self.blocks:
            arguments = (x, shared, prompt, rows, starts, audio_enabled, grid, r)
            x = run_block(self.checkpointing if self.training else "none", block, *arguments)

        target, _ = split_reference(x, r, order)
        emb_target, _ = split_reference(embedded, r, order)
        shift, scale = self.modulation_out(emb_target).unsqueeze(-2).chunk(2, -1)
        out = self.proj_out(self.norm_out(target) * (1 + scale) + shift)
        return self.precondition.combine(self.unpatchify(out, grid).float(), z_t.float(), t_target)

    def patchify(self, z: Tensor) -> Tensor:
        """[B, C, f, h, w] -> [B, f, N, D]"""
        _, ph, pw = self.cfg.patch
        return self.patch_embed(rearrange(z, "b c f (h p) (w q) -> b f (h w) (c p q)", p=ph, q=pw))

    def unpatchify(self, x: Tensor, grid: tuple[int, int, int]) -> Tensor:
        """[B, f, N, C p q] -> [B, C, f, h, w]"""
        _, ph, pw = self.cfg.patch
        return rearrange(x, "b f (h w) (c p q) -> b c f (h p) (w q)", h=grid[1], p=ph, q=pw)
