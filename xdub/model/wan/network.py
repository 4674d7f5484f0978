"""WanDiT, the backbone of Wan 2.1, Wan 2.2, X-Dub's and TBDub's published editors, under the original parameter names.

B batch, C latent channels, f target frames, r reference frames, h w latent size, N = (h/2)(w/2) tokens a frame,
D hidden size, S prompt rows, T audio rows. Tokens are [B, frames, N, D]. The timestep is one value a frame (0 on
references and on motion frames), so the modulation is [B, frames, 1, 6, D].

A plain Wan gets two additions. Speech: the output layer of the audio attention starts at zero, so the step 0 equals the
plain Wan. References: their tokens take part in the softmax from the start, so with references no step 0 equals it.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass
from types import MappingProxyType

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from xdub.config import LORA_TARGETS
from xdub.diffusion.flow_matching import frame_times, motion_frame_mask
from xdub.errors import UserError
from xdub.model.attention import AudioAdapter
from xdub.model.backbone import Backbone
from xdub.model.block import join_reference, split_reference
from xdub.model.checkpointing import run_block
from xdub.model.dit import timestep_sinusoid
from xdub.model.prompt import Prompt
from xdub.model.wan.block import WanBlock, WanKeys, WanRows
from xdub.model.wan.config import WanConfig
from xdub.model.wan.layers import Head, Mlp
from xdub.model.wan.speech import SpeechProjection
from xdub.perception.open_models.wan_names import MASK, beyond_wan, original_name
from xdub_kernels import Rope


@dataclass(frozen=True, kw_only=True)
class WanConditions:
    """Everything that `WanDiT.velocity` needs besides z_t and t."""

    reference: Tensor
    """[B, r, N, D] tokens of the reference frames."""
    masked: Tensor | None
    """[B, f, N, D] share of z_mask in the target tokens; None in an editor."""
    clean: Tensor
    """[B, f] bool: motion frames, whose t is 0."""
    audio_enabled: Tensor | None
    """[B] bool, or None: audio attention is on for all samples."""
    blocks: tuple[WanKeys | WanRows, ...]
    """One entry a block: keys in sampling; rows in training, where a block may recompute its keys (checkpointing)."""


class WanDiT(Backbone[WanConditions]):
    """The transformer of the Wan family, plain or with speech, references and masks."""

    lora_targets = LORA_TARGETS["wan"]
    parts = MappingProxyType(
        {
            "self_attn": "projections",
            "cross_attn": "text cross-attention",
            "audio_attn": "audio cross-attention",
            "ffn": "FFN",
        }
    )
    self_attentions = MappingProxyType({"self_attn": "3D attention"})

    def __init__(self, cfg: WanConfig, prompt: Prompt | None = None) -> None:
        """Initialise randomly, with additions that change nothing. ``prompt`` is the one of calls without text."""
        super().__init__(cfg.geometry, masked_input=cfg.masked_input, order=cfg.order)
        self.cfg, self.prompt, self.speech = cfg, prompt, cfg.speech
        size, (_, ph, pw), channels = cfg.hidden_size, cfg.patch, cfg.geometry.channels
        assert cfg.text_dim is not None
        self.patch_embedding = nn.Conv3d(channels, size, cfg.patch, stride=cfg.patch)
        self.mask_embedding = nn.Linear(channels * ph * pw, size, bias=False) if cfg.masked_input else None
        self.text_embedding = Mlp(cfg.text_dim, size, nn.GELU(approximate="tanh"))
        self.time_embedding = Mlp(cfg.freq_dim, size, nn.SiLU())
        self.time_projection = nn.Sequential(nn.SiLU(), nn.Linear(size, 6 * size))
        self.audio_embedding = self.audio_adapter = None
        if cfg.audio_dim is not None and cfg.speech == "published":
            self.audio_embedding = SpeechProjection(cfg.audio_dim, cfg.speech_width, size)
        elif cfg.audio_dim is not None:
            self.audio_adapter = AudioAdapter(cfg.audio_dim, size, cfg.geometry.rows_per_latent)
        self.blocks = nn.ModuleList(
            WanBlock(cfg, speaks=cfg.audio_dim is not None) for _ in range(cfg.num_layers)
        )
        self.head = Head(size, channels * ph * pw, cfg.eps)
        for name, module in self.named_modules():
            self._silence(name, module)

    def addition(self, name: str) -> bool:
        """Return whether a tensor is new beside the open weights that the network starts from.

        Published editors have speech. Other open weights have none, and no open weights embed z_mask.
        """
        return beyond_wan(name) and (self.cfg.speech == "frames" or name.startswith(MASK))

    def reset_additions(self) -> None:
        """Initialise the additions that are on the meta device, so that the output is that of the open weights."""
        for name, module in self.named_modules():
            own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
            if own and all(tensor.is_meta for tensor in own):
                module.to_empty(device="cpu", recurse=False)
                getattr(module, "reset_parameters")()  # noqa: B009 (not every module has it)
                self._silence(name, module)

    def _silence(self, name: str, module: nn.Module) -> None:
        """Set to zero a layer through which z_mask or new speech enters."""
        if name == MASK or (name.endswith(".audio_attn.o") and self.addition(name)):
            for parameter in module.parameters():
                nn.init.zeros_(parameter)

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
    ) -> WanConditions:
        """Compute reference tokens, prompt, audio rows and, with ``reuse``, the keys and values of every block."""
        if (z_mask is None) == self.masked_input:
            raise ValueError(
                f"z_mask must be given exactly when masked_input is set (it is {self.masked_input})"
            )
        prompt, padding = self._prompt(text)
        sound, sound_starts, enabled = self._speech(audio, starts, audio_enabled)
        rows = WanRows(prompt, padding, sound, sound_starts)
        masked = None
        if z_mask is not None and self.mask_embedding is not None:
            masked = self.mask_embedding(self.patches(z_mask.to(self._dtype)))
        return WanConditions(
            reference=self._tokens(z_ref),
            masked=masked,
            clean=motion_frame_mask(len(starts), motion_frames, z_ref.shape[0]).to(z_ref.device),
            audio_enabled=enabled,
            blocks=tuple(block.prepared(rows) for block in self._own_blocks())
            if reuse
            else (rows,) * len(self.blocks),
        )

    def velocity(self, z_t: Tensor, t: Tensor, conditions: WanConditions) -> Tensor:
        """Return v_hat [B, C, f, h, w] of z_t at t [B]."""
        target = self._tokens(z_t)
        if conditions.masked is not None:
            target = target + conditions.masked
        times = frame_times(t.float(), conditions.clean)
        return self._run(z_t, target, times[..., None], conditions.reference, conditions)

    def velocity_from_text(self, z_t: Tensor, t: Tensor | float, text: Tensor | None = None) -> Tensor:
        """Return v_hat [B, C, f, h, w] of a plain Wan, without references and speech.

        Args:
            z_t: [B, C, f, h, w].
            t: one number, [B], [B, f] or one value a token [B, f N], in [0, 1].
            text: [B, S, text_dim], all rows including the zero rows. None: the network's prompt.
        """
        tokens = self._tokens(z_t)
        batch, f, per_frame = *tokens.shape[:2], self._per_frame(z_t)
        t = torch.as_tensor(t, device=z_t.device)
        if t.shape in ((), (1,), (batch,)):
            times = t.expand(batch)[:, None, None].expand(batch, f, 1)
        elif t.shape == (batch, f):
            times = t[..., None]
        elif t.shape == (batch, f * per_frame):
            times = self.group.own_tokens(t.unflatten(1, (f, per_frame)))
        else:
            raise ValueError(
                f"t must be one number, [B], [B, f] = {[batch, f]} or [B, f N] = {[batch, f * per_frame]}, "
                f"got {list(t.shape)}"
            )
        prompt, padding = self._prompt(text)
        rows = WanRows(prompt, padding, None, tokens.new_zeros(f, dtype=torch.int64))
        plain = WanConditions(
            reference=tokens[:, :0],
            masked=None,
            clean=torch.zeros(batch, f, dtype=torch.bool, device=z_t.device),
            audio_enabled=None,
            blocks=(rows,) * len(self.blocks),
        )
        return self._run(z_t, tokens, times.float(), plain.reference, plain)

    def own_tensor(self, name: str, value: Tensor) -> tuple[str, Tensor] | None:
        """Return a tensor under the name of its release; an editor needs none of a generator's z_mask."""
        name = original_name(name)
        return None if name.startswith(MASK) and not self.masked_input else (name, value)

    def optional_names(self, names: Set[str]) -> frozenset[str]:
        """Return the additions, which open weights lack as a whole: new speech, and the embedding of z_mask."""
        own = {name for name in self.state_dict() if self.addition(name)}
        mask = {name for name in own if name.startswith(MASK)}
        return frozenset().union(*(group for group in (mask, own - mask) if not group & names))

    def patches(self, z: Tensor) -> Tensor:
        """Cut latents [B, C, f, h, w] into patches [B, f, N, C p q], and return those of this rank."""
        _, ph, pw = self.cfg.patch
        if z.shape[3] % ph or z.shape[4] % pw:
            raise ValueError(f"latent size {z.shape[3]}x{z.shape[4]} is not divisible by the patch {ph}x{pw}")
        return self.group.own_tokens(rearrange(z, "b c f (h p) (w q) -> b f (h w) (c p q)", p=ph, q=pw))

    def _per_frame(self, z: Tensor) -> int:
        """Return the tokens of a frame of latents z [B, C, f, h, w] on all ranks together."""
        _, ph, pw = self.cfg.patch
        return (z.shape[3] // ph) * (z.shape[4] // pw)

    @property
    def _dtype(self) -> torch.dtype:
        return self.patch_embedding.weight.dtype

    def _own_blocks(self) -> list[WanBlock]:
        """Return `blocks` under their own type."""
        return [block for block in self.blocks if isinstance(block, WanBlock)]

    def _tokens(self, z: Tensor) -> Tensor:
        """Embed latents [B, C, f, h, w] as tokens [B, f, N, D]: a convolution of the patch's stride is a product."""
        layer = self.patch_embedding
        return F.linear(self.patches(z.to(self._dtype)), layer.weight.flatten(1), layer.bias)

    def _prompt(self, text: Tensor | None) -> tuple[Tensor, int]:
        """Return the prompt's rows [B or 1, S, D], and the number of rows that the last one stands for."""
        if text is not None:
            return self.text_embedding(text.to(self._dtype)), 0
        if self.prompt is None:
            raise UserError(
                "the model has no prompt: --set model.prompt=FILE, written by `xdub weights prompt`, or give text"
            )
        rows, padding = self.prompt.rows, self.prompt.padding
        if padding:
            rows = torch.cat((rows, rows.new_zeros(1, rows.shape[1])))
        weight = self.patch_embedding.weight
        return self.text_embedding(rows[None].to(weight.device, weight.dtype)), padding

    def _speech(
        self, audio: Tensor, starts: Tensor, enabled: Tensor | None
    ) -> tuple[Tensor | None, Tensor, Tensor | None]:
        """Return audio rows [B, T, D], the first row of each frame's window, and the gate of the audio attention.

        Published editors represent silence by features of zeros, all others by a closed gate.
        """
        audio = audio.to(self._dtype)
        if self.audio_adapter is not None:
            return self.audio_adapter(audio), starts, enabled
        if self.audio_embedding is None:
            return None, starts, enabled
        window = self.cfg.audio_window
        if enabled is not None:
            audio = audio * enabled.to(audio.dtype)[:, None, None]
        rows = starts[:, None].to(audio.device) + torch.arange(window, device=audio.device)
        windows = audio[:, rows.clamp(0, audio.shape[1] - 1)]
        firsts = window * torch.arange(len(starts), device=audio.device)
        return self.audio_embedding(windows), firsts, None

    def _run(
        self, z_t: Tensor, target: Tensor, times: Tensor, reference: Tensor, conditions: WanConditions
    ) -> Tensor:
        """Return v_hat of target tokens [B, f, N, D] at times [B, f, n] beside reference tokens [B, r, N, D]."""
        _, ph, pw = self.cfg.patch
        grid = (z_t.shape[2], z_t.shape[3] // ph, z_t.shape[4] // pw)
        r = reference.shape[1]
        rope = Rope(grid, r, self.order)
        x = join_reference(target, reference, self.order) if r else target
        all_times = join_reference(times, times.new_zeros(times.shape[0], r, times.shape[2]), self.order)
        embedded = self._embed_times(all_times)
        shared = self.time_projection(embedded.to(self._dtype)).unflatten(-1, (6, -1))
        policy = self.checkpointing if self.training else "none"
        for block, keys in zip(self.blocks, conditions.blocks, strict=True):
            x = run_block(policy, block, x, shared, keys, conditions.audio_enabled, rope)
        target, _ = split_reference(x, r, self.order)
        embedded, _ = split_reference(embedded, r, self.order)
        out = self.group.all_tokens(self.head(target, embedded), self._per_frame(z_t)).float()
        # The order of a patch's outputs is (p, q, c), unlike that of its inputs.
        return rearrange(out, "b f (h w) (p q c) -> b c f (h p) (w q)", h=grid[1], p=ph, q=pw)

    def _embed_times(self, times: Tensor) -> Tensor:
        """Embed times [...] in [0, 1] as [..., D] fp32: a bf16 sinusoid of 1000 t has two or three digits."""
        steps = 1000 * times.float()
        if self.cfg.round_timesteps:
            steps = steps.bfloat16().float()
        sinusoid = timestep_sinusoid(steps, self.cfg.freq_dim // 2)
        # An odd width ends with a zero.
        return self.time_embedding.exact(F.pad(sinusoid, (0, self.cfg.freq_dim % 2)))
