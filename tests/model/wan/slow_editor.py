"""A slow, independent X-Dub: one sample, plain torch, RoPE as complex numbers in float64, read from a state dict.

The references precede the targets on the frame axis. Prompt and speech reach target tokens only.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F


class SlowEditor:
    """The published editors' forward pass, in float64."""

    def __init__(self, state, *, heads, projection_heads, eps=1e-6):
        self.state = {name: value.double() for name, value in state.items()}
        self.heads, self.projection_heads, self.eps = heads, projection_heads, eps
        self.blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))

    def linear(self, name, x):
        return F.linear(x, self.state[f"{name}.weight"], self.state.get(f"{name}.bias"))

    def norm(self, x, name=None, eps=None):
        weight, bias = (
            (None, None) if name is None else (self.state[f"{name}.{p}"] for p in ("weight", "bias"))
        )
        return F.layer_norm(x, x.shape[-1:], weight, bias, self.eps if eps is None else eps)

    def rms(self, x, name):
        return x / torch.sqrt((x * x).mean(-1, keepdim=True) + self.eps) * self.state[f"{name}.weight"]

    def attend(self, q, k, v, heads):
        """Attend one query row at a time; q [L, D], k and v [M, D]."""
        out = torch.zeros_like(q)
        size = q.shape[1] // heads
        for h in range(heads):
            cut = slice(h * size, (h + 1) * size)
            out[:, cut] = torch.softmax(q[:, cut] @ k[:, cut].T / math.sqrt(size), -1) @ v[:, cut]
        return out

    def turn(self, x, positions):
        """Rotate x [L, D] by positions [L, 3] as complex numbers, head by head."""
        size = x.shape[1] // self.heads
        third = 2 * (size // 6)
        axes = (size - 2 * third, third, third)
        factors = []
        for axis, width in enumerate(axes):
            frequency = 10000.0 ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
            factors.append(torch.polar(torch.ones(1).double(), positions[:, axis : axis + 1] * frequency))
        factor = torch.cat(factors, 1)[:, None]
        pairs = torch.view_as_complex(x.reshape(len(x), self.heads, -1, 2).contiguous())
        return torch.view_as_real(pairs * factor).flatten(1)

    def tokens(self, z):
        """Embed z [C, f, h, w] by a convolution as [f h w, D]."""
        weight, bias = self.state["patch_embedding.weight"], self.state["patch_embedding.bias"]
        return F.conv3d(z[None].double(), weight, bias, stride=weight.shape[2:])[0].flatten(1).T

    def speech(self, features, first_frame, latents):
        """Project the 8 rows of each latent of a clip that starts at video frame ``first_frame``; [latents, 8, D]."""
        windows = []
        for k in range(latents):
            v = first_frame + 4 * (k - 1) + 1
            rows = range(2 * first_frame - 6, 2 * first_frame + 2) if k == 0 else range(2 * v, 2 * v + 8)
            windows.append(torch.stack([features[min(max(row, 0), len(features) - 1)] for row in rows]))
        out = []
        for rows in windows:
            x = self.linear("audio_embedding.proj_in", rows.double())
            for n in range(4):
                layer = f"audio_embedding.layers.{n}"
                y = self.norm(x, f"{layer}.norm1", 1e-5) + self.state[f"{layer}.pos_embed.pe"][0, :8]
                q, k, v = (self.linear(f"{layer}.attn.to_{p}", y) for p in "qkv")
                x = x + self.linear(f"{layer}.attn.to_out.0", self.attend(q, k, v, self.projection_heads))
                value, gate = self.linear(
                    f"{layer}.ff.net.0.proj", self.norm(x, f"{layer}.norm2", 1e-5)
                ).chunk(2, -1)
                x = x + self.linear(
                    f"{layer}.ff.net.2", value * 0.5 * gate * (1 + torch.erf(gate / math.sqrt(2)))
                )
            out.append(self.linear("audio_embedding.proj_out", x))
        return torch.stack(out)

    def time(self, steps):
        """Embed steps [L] of 0..1000, rounded to bfloat16, as [L, D]."""
        width = self.state["time_embedding.0.weight"].shape[1] // 2
        frequency = 10000.0 ** (-torch.arange(width, dtype=torch.float64) / width)
        angle = steps.bfloat16().double()[:, None] * frequency
        x = torch.cat((angle.cos(), angle.sin()), 1)
        return self.linear("time_embedding.2", F.silu(self.linear("time_embedding.0", x)))

    def velocity(self, z_t, z_ref, t, prompt, features, *, first_frame=0, motion=0):
        """Return v [C, f, h, w] of z_t [C, f, h, w] beside z_ref at t; ``prompt`` [S, text] has its zero rows."""
        channels, f, h, w = z_t.shape
        _, _, _, ph, pw = self.state["patch_embedding.weight"].shape
        rows, columns = h // ph, w // pw
        per_frame = rows * columns
        grid = torch.cartesian_prod(*(torch.arange(n) for n in (f, rows, columns))).double()
        positions = torch.cat((grid + torch.tensor([0.0, rows, columns]).double(), grid))
        x = torch.cat((self.tokens(z_ref), self.tokens(z_t)))
        frame_steps = torch.full((f,), 1000 * float(t), dtype=torch.float32)
        frame_steps[:motion] = 0
        e = self.time(torch.cat((torch.zeros(f), frame_steps)).repeat_interleave(per_frame))
        shared = self.linear("time_projection.1", F.silu(e)).reshape(len(e), 6, -1)
        text = self.linear(
            "text_embedding.2",
            F.gelu(self.linear("text_embedding.0", prompt.double()), approximate="tanh"),
        )
        speech = self.speech(features, first_frame, f)
        split = f * per_frame
        for n in range(self.blocks):
            block = f"blocks.{n}"
            vectors = self.state[f"{block}.modulation"] + shared
            shift, scale, gate, shift_f, scale_f, gate_f = vectors.unbind(1)
            y = self.norm(x) * (1 + scale) + shift
            q, k = (
                self.turn(
                    self.rms(self.linear(f"{block}.self_attn.{p}", y), f"{block}.self_attn.norm_{p}"),
                    positions,
                )
                for p in "qk"
            )
            v = self.linear(f"{block}.self_attn.v", y)
            x = x + gate * self.linear(f"{block}.self_attn.o", self.attend(q, k, v, self.heads))
            target = x[split:]
            target = target + self.cross(f"{block}.cross_attn", self.norm(target, f"{block}.norm3"), text)
            y = self.norm(target, f"{block}.norm4").reshape(f, per_frame, -1)
            target = target + torch.cat(
                [self.cross(f"{block}.audio_attn", y[k], speech[k]) for k in range(f)]
            )
            x = torch.cat((x[:split], target))
            y = self.norm(x) * (1 + scale_f) + shift_f
            inner = F.gelu(self.linear(f"{block}.ffn.0", y), approximate="tanh")
            x = x + gate_f * self.linear(f"{block}.ffn.2", inner)
        shift, scale = (self.state["head.modulation"] + e[split:, None]).unbind(1)
        patches = self.linear("head.head", self.norm(x[split:]) * (1 + scale) + shift)
        out = torch.zeros_like(z_t, dtype=torch.float64)
        for token, patch in enumerate(patches.reshape(-1, ph, pw, channels)):
            k, rest = divmod(token, per_frame)
            i, j = divmod(rest, columns)
            out[:, k, i * ph : (i + 1) * ph, j * pw : (j + 1) * pw] = patch.permute(2, 0, 1)
        return out

    def cross(self, name, x, rows):
        q = self.rms(self.linear(f"{name}.q", x), f"{name}.norm_q")
        k = self.rms(self.linear(f"{name}.k", rows), f"{name}.norm_k")
        return self.linear(f"{name}.o", self.attend(q, k, self.linear(f"{name}.v", rows), self.heads))
