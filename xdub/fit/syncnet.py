"""Train and score the small SyncNet (command line: ``python -m xdub.fit.syncnet --data DS --out FILE``).

Aligned pairs are positives; the same clip at another time, and other clips, are negatives. Half of the pictures have
passed through the codec, so that its blur does not count as bad lips.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor

from xdub.errors import UserError
from xdub.files.atomic import check_output
from xdub.geometry import AUDIO_MARGIN
from xdub.model.audio_encoder import AudioEncoder
from xdub.model.codec import Codec
from xdub.perception.syncnet import FRAMES, SyncNet, SyncNetConfig
from xdub.seeding import rng, stable_seed

WINDOW = 13
"""Frames drawn from a clip at a time: nine visual windows, as many as the lip phase decodes."""
MIN_SHIFT = 4
"""Least distance, in frames, of windows that count as out of sync; closer ones share most of their sound."""
MAX_LAG = 8
"""Largest lag, in frames, at which speech and lips are compared."""


class SpeakingClip(Protocol):
    """Fields that are read from a clip."""

    @property
    def frames(self) -> np.ndarray:
        """Face crops [F, H, W, 3] uint8."""

    @property
    def audio(self) -> np.ndarray:
        """Samples [640 F] float32, 16 kHz."""


@dataclass(frozen=True, kw_only=True)
class SyncScores:
    """Scores of a SyncNet on a set of clips."""

    accuracy: float
    """Share of right answers on equally many aligned and misaligned pairs."""
    lag_accuracy: float
    """Share of clips whose mean cosine over the lags -8 ... 8 frames is largest within one frame of 0."""
    aligned_cosine: float
    """Mean cosine of aligned pairs."""
    misaligned_cosine: float
    """Mean cosine of misaligned pairs."""


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A clip ready for training."""

    patches: Tensor
    """Mouth patches uint8 [V, F, 3, p, p]: V = 1, or 2 with the codec's round trip."""
    audio: Tensor
    """Padded audio rows [T, d]."""

    @property
    def num_frames(self) -> int:
        """Length F of the clip."""
        return self.patches.shape[1]


def train_syncnet(
    clips: Sequence[SpeakingClip],
    audio_encoder: AudioEncoder,
    *,
    codec: Codec | None = None,
    steps: int = 600,
    seed: int = 0,
    batch: int = 24,
    cfg: SyncNetConfig | None = None,
    progress: Callable[[int, float], None] | None = None,
) -> SyncNet:
    """Train a SyncNet on clips of at least 13 frames; it is returned frozen, in eval mode.

    The result is deterministic for one seed, thread count and machine. ``codec`` adds round-tripped pictures;
    ``progress(step, loss)`` is called every 20 steps; ``batch`` is the number of clips in a step.

    Raises:
        UserError: there are fewer than two usable clips.
    """
    cfg = cfg or SyncNetConfig(audio_dim=audio_encoder.dim)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed(seed, "syncnet"))
        net = SyncNet(cfg)
    prepared = [_prepare(net, clip, audio_encoder, codec) for clip in clips if len(clip.frames) >= WINDOW]
    if len(prepared) < 2:
        raise UserError(f"{len(prepared)} clips of at least {WINDOW} frames; a SyncNet needs two or more")
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(steps, 2), pct_start=0.1)
    random = rng(seed, "syncnet windows")
    for step in range(steps):
        patches, audio = _draw(prepared, batch, random)
        loss = _loss(net, patches, audio)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if progress and (step % 20 == 0 or step == steps - 1):
            progress(step, loss.item())
    return net.eval().requires_grad_(False)


@torch.no_grad()
def score_syncnet(
    net: SyncNet,
    clips: Sequence[SpeakingClip],
    audio_encoder: AudioEncoder,
    *,
    codec: Codec | None = None,
) -> SyncScores:
    """Score a SyncNet on clips that it was not trained on; with a codec, on its round trips."""
    prepared = [_prepare(net, clip, audio_encoder, codec) for clip in clips]
    aligned, misaligned, best = [], [], []
    for i, item in enumerate(prepared):
        picture = net.embed_patches(_unit(item.patches[-1:]))[0]
        sound = net.embed_audio(item.audio[None], item.num_frames)[0]
        other = prepared[(i + 1) % len(prepared)]
        foreign = net.embed_audio(other.audio[None], other.num_frames)[0]
        cosine = picture @ sound.T
        aligned.append(cosine.diagonal())
        count = len(picture)
        misaligned.append(cosine[torch.arange(count), (torch.arange(count) + count // 2) % count])
        if other is not item:
            shared = min(count, len(foreign))
            misaligned.append((picture[:shared] * foreign[:shared]).sum(-1))
        by_lag = {
            lag: cosine.diagonal(lag).mean() for lag in range(-MAX_LAG, MAX_LAG + 1) if abs(lag) < count - 4
        }
        best.append(max(by_lag, key=by_lag.__getitem__))
    right, wrong = torch.cat(aligned), torch.cat(misaligned)
    hits = ((net.logits(right) > 0).float().mean() + (net.logits(wrong) <= 0).float().mean()) / 2
    return SyncScores(
        accuracy=hits.item(),
        lag_accuracy=float(np.mean(np.abs(best) <= 1)),
        aligned_cosine=right.mean().item(),
        misaligned_cosine=wrong.mean().item(),
    )


def _prepare(net: SyncNet, clip: SpeakingClip, audio_encoder: AudioEncoder, codec: Codec | None) -> _Prepared:
    """Cut the mouths of a clip; with a codec, of the longest prefix of the clip that fits it."""
    usable = len(clip.frames) if codec is None else codec.geometry.longest(len(clip.frames))
    video = (
        torch.from_numpy(np.ascontiguousarray(clip.frames[:usable])).permute(3, 0, 1, 2).float() / 127.5 - 1
    )
    versions = [video]
    if codec is not None:
        with torch.no_grad():
            versions.append(codec.decode(codec.encode(video[None]))[0])
    patches = torch.stack([net.mouth(rearrange(v, "c f h w -> f c h w")) for v in versions])
    audio = audio_encoder.encode(clip.audio)[: 2 * usable]
    audio = F.pad(audio, (0, 0, AUDIO_MARGIN, AUDIO_MARGIN + 2 * usable - len(audio)))
    return _Prepared(patches=((patches.clamp(-1, 1) + 1) * 127.5).round().byte(), audio=audio)


def _unit(patches: Tensor) -> Tensor:
    return patches.float() / 127.5 - 1


def _draw(prepared: Sequence[_Prepared], batch: int, random: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Draw patches [B, 13, 3, p, p] of different clips, shaken and mirrored, with their audio rows [B, 34, d]."""
    patches, audio = [], []
    for i in random.choice(len(prepared), size=min(batch, len(prepared)), replace=False):
        item = prepared[i]
        start = int(random.integers(item.num_frames - WINDOW + 1))
        version = int(random.integers(len(item.patches)))
        patch = _unit(item.patches[version, start : start + WINDOW])
        if random.random() < 0.5:
            patch = patch.flip(-1)
        dy, dx = random.integers(-2, 3, size=2)
        patch = F.pad(patch, (2, 2, 2, 2), mode="replicate")[..., 2 + dy : 2 + dy + patch.shape[-2], :]
        patch = patch[..., 2 + dx : 2 + dx + item.patches.shape[-1]]
        gain = torch.from_numpy(random.uniform(0.8, 1.2, size=(3, 1, 1))).float()
        patches.append(patch * gain + float(random.uniform(-0.1, 0.1)))
        audio.append(item.audio[2 * start : 2 * (start + WINDOW) + 2 * AUDIO_MARGIN])
    return torch.stack(patches), torch.stack(audio)


def _loss(net: SyncNet, patches: Tensor, audio: Tensor) -> Tensor:
    """Add the loss of picking the right sound from the batch and the loss of judging single pairs."""
    picture = rearrange(net.embed_patches(patches), "b n e -> (b n) e")
    sound = rearrange(net.embed_audio(audio, WINDOW), "b n e -> (b n) e")
    cosine = picture @ sound.T
    windows = WINDOW - FRAMES + 1
    index = torch.arange(len(cosine))
    distance = (index[:, None] - index[None]).abs()
    same_clip = (index[:, None] // windows) == (index[None] // windows)
    # Windows this close are neither in sync nor out of it.
    too_close = same_clip & (distance > 0) & (distance < MIN_SHIFT)
    logits = (10.0 * cosine).masked_fill(too_close, -1e4)
    contrast = (F.cross_entropy(logits, index) + F.cross_entropy(logits.T, index)) / 2
    answers = net.logits(cosine)
    aligned = F.softplus(-answers.diagonal()).mean()
    misaligned = F.softplus(answers[~(too_close | (distance == 0))]).mean()
    same_voice = F.softplus(answers[same_clip & (distance >= MIN_SHIFT)]).mean()
    return contrast + aligned + (misaligned + same_voice) / 2


def main() -> None:
    """Run the command line of this module."""
    from xdub.config import load_recipe
    from xdub.data.shards import iter_clips
    from xdub.model.audio_encoder import load_audio_encoder
    from xdub.model.codec import load_codec

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="tiny")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--held-out", type=float, default=0.15, help="share of the clips kept for the scores")
    args = parser.parse_args()
    check_output(args.out)
    recipe = load_recipe(args.recipe)
    codec, audio_encoder = load_codec(recipe.codec), load_audio_encoder(recipe.audio)
    clips = list(iter_clips(args.data))
    keep = max(2, round(args.held_out * len(clips)))
    net = train_syncnet(
        clips[:-keep],
        audio_encoder,
        codec=codec,
        steps=args.steps,
        seed=recipe.seed,
        progress=lambda step, loss: print(f"step {step}  loss {loss:.3f}", flush=True),
    )
    print("held out:", score_syncnet(net, clips[-keep:], audio_encoder))
    print("held out, through the codec:", score_syncnet(net, clips[-keep:], audio_encoder, codec=codec))
    net.save(args.out, torch.float16)


if __name__ == "__main__":
    main()
