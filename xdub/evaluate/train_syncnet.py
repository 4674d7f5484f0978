"""Train the packaged SyncNet: ``python -m xdub.evaluate.train_syncnet --data DS --out syncnet.safetensors``.

DS are clip shards, e.g. of ``xdub render``. The last clips are held out and scored.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from xdub.perception.syncnet_training import score_syncnet, train_syncnet


def main() -> None:
    """Command line of this module."""
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
