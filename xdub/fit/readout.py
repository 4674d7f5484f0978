"""Train the packaged readout: ``python -m xdub.fit.readout --data DS --held-out DS2 --out FILE``.

DS and DS2 are clip shards of ``xdub render``; no speaker of DS2 (its held-out range) may be in DS. The command prints
the correlations on DS2, of true frames and of the codec's round trip.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from xdub.errors import UserError
from xdub.evaluate.opening import KnownClip, round_trip, score_readout
from xdub.files.atomic import check_output
from xdub.model.codec import Codec
from xdub.perception.mouth_readout import PATCH, MouthReadout, mouth_patches, shake
from xdub.seeding import rng, stable_seed, torch_rng

WIDE = 1.25
"""Side of the cut pictures, as a multiple of a patch: the margin is for random shifts and turns."""


@dataclass(frozen=True, kw_only=True)
class _Prepared:
    """A clip ready for training."""

    patches: Tensor
    """Wide patches, uint8 [V, F, 3, S, S]: V = 1, or 2 with the codec's round trip."""
    opening: Tensor
    """True opening [F]."""


def train_readout(
    clips: Iterable[KnownClip],
    *,
    codec: Codec | None = None,
    steps: int = 2500,
    seed: int = 0,
    batch: tuple[int, int] = (8, 16),
    progress: Callable[[int, float], None] | None = None,
) -> MouthReadout:
    """Train a readout; it is returned frozen, in eval mode.

    The result is deterministic for one seed, thread count and machine.

    Args:
        clips: clips with landmarks and true openings; others are ignored.
        codec: adds round-tripped pictures.
        steps: number of optimizer steps.
        seed: seed of weights, batches and augmentation.
        batch: (clips, frames of each) in a step.
        progress: called as ``progress(step, loss)`` every 100 steps.

    Raises:
        UserError: no clip has a known opening.
    """
    prepared = [item for clip in clips if (item := _prepare(clip, codec)) is not None]
    if not prepared:
        raise UserError(
            "no clip with a known mouth opening and landmarks: train the readout on rendered clips"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(stable_seed(seed, "readout"))
        net = MouthReadout()
    optimizer = torch.optim.AdamW(net.parameters(), lr=2e-3, weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, total_steps=max(steps, 2), pct_start=0.05)
    random, generator = rng(seed, "readout batches"), torch_rng(seed, "readout shake")
    for step in range(steps):
        patches, opening = _draw(prepared, random, *batch)
        read = net(shake(patches.float() / 255, generator)).view(opening.shape)
        loss = _loss(read, opening)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
        if progress and (step % 100 == 0 or step == steps - 1):
            progress(step, loss.item())
    return net.eval().requires_grad_(False)


def _prepare(clip: KnownClip, codec: Codec | None) -> _Prepared | None:
    if clip.opening is None:
        return None
    versions = [clip.frames] if codec is None else [clip.frames, round_trip(clip.frames, codec)]
    cut = [mouth_patches(frames, clip.landmarks, round(PATCH * WIDE), WIDE) for frames in versions]
    has_face = cut[0][1]
    if not has_face.any():
        return None
    patches = torch.from_numpy(np.stack([patches[has_face] for patches, _ in cut]))
    return _Prepared(
        patches=patches.permute(0, 1, 4, 2, 3).contiguous(), opening=torch.from_numpy(clip.opening[has_face])
    )


def _draw(
    prepared: list[_Prepared], random: np.random.Generator, clips: int, frames_of_each: int
) -> tuple[Tensor, Tensor]:
    """Draw patches [clips * frames, 3, S, S] uint8 and their opening [clips, frames]."""
    patches, opening = [], []
    for i in random.integers(len(prepared), size=clips):
        item = prepared[i]
        frames = torch.from_numpy(random.integers(len(item.opening), size=frames_of_each))
        patches.append(item.patches[int(random.integers(len(item.patches)))][frames])
        opening.append(item.opening[frames])
    return torch.cat(patches), torch.stack(opening)


def _loss(read: Tensor, opening: Tensor) -> Tensor:
    """Add the error of the value and its lack of correlation inside each clip; both arguments are [clips, frames]."""
    value = F.smooth_l1_loss(read, opening, beta=0.05) / 0.05
    a, b = read - read.mean(1, keepdim=True), opening - opening.mean(1, keepdim=True)
    correlation = (a * b).sum(1) / ((a.square().sum(1) + 1e-4) * (b.square().sum(1) + 1e-4)).sqrt()
    return value + 1 - correlation.mean()


def main() -> None:
    """Run the command line of this module."""
    from xdub.config import load_recipe
    from xdub.data.shards import iter_clips
    from xdub.model.codec import load_codec

    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--held-out", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--recipe", default="tiny", help="recipe whose codec makes the round trips")
    parser.add_argument("--steps", type=int, default=2500)
    args = parser.parse_args()
    check_output(args.out)
    recipe = load_recipe(args.recipe)
    codec = load_codec(recipe.codec)
    readout = train_readout(
        iter_clips(args.data), codec=codec, steps=args.steps, seed=recipe.seed,
        progress=lambda step, loss: print(f"step {step}  loss {loss:.3f}", flush=True),
    )  # fmt: skip
    readout.save(args.out)
    readout = MouthReadout.load(args.out)
    held_out = list(iter_clips(args.held_out))
    print("true frames:", score_readout(readout, held_out))
    print("codec round trip:", score_readout(readout, held_out, codec))


if __name__ == "__main__":
    main()
