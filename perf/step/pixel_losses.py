"""`python -m perf pixel_losses`: memory and time of pixel losses through Wan's VAE at its true width, with gradients.

The weights are random and the windows are noise, because neither changes the cost. The loss is the mean square of the
13 decoded frames; networks of losses are not included. A case is decoded as training decodes it (`checkpointed`), or by
diffusers' own loop, which keeps all activations (`plain`).
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from perf.environment import environment
from xdub.config import Recipe, load_recipe
from xdub.files.atomic import check_output
from xdub.losses.single_step import single_step_video
from xdub.miniature.networks import WAN_2_2
from xdub.miniature.sizes import WAN_2_2_WIDTHS
from xdub.model.codec import WanCodec
from xdub.plan.codec_cost import decode_bytes

KINDS: dict[str, dict[str, Any]] = {"wan": {}, "wan2.2": {**WAN_2_2, **WAN_2_2_WIDTHS}}
"""Kind of codec -> arguments of diffusers' AutoencoderKLWan at full width."""
LATENTS = 4
"""Latents of a slice: 13 frames."""
PAPER_SIZE = 512
"""Pixels to which figures are scaled."""


def build(kind: str) -> WanCodec:
    """Return a codec at full width with random weights."""
    from diffusers.models.autoencoders.autoencoder_kl_wan import AutoencoderKLWan

    torch.manual_seed(0)
    return WanCodec(AutoencoderKLWan(**KINDS[kind]))


def recipe_of(kind: str, size: int, precision: str) -> Recipe:
    """Return `xdub-1b` with a codec, a size and a precision, for the planner."""
    settings = [f"codec.kind={kind}", f"codec.channels={KINDS[kind].get('z_dim', 16)}"]
    return load_recipe("xdub-1b", [*settings, f"video.size={size}", f"train.precision={precision}"])


def run(codec: WanCodec, way: Literal["checkpointed", "plain"], z0: Tensor, start: int) -> dict[str, float]:
    """Run forward and backward once; return seconds of both."""
    v_hat = torch.randn_like(z0).requires_grad_()
    eps, t = torch.randn_like(z0), torch.tensor([0.5])
    began = time.perf_counter()
    if way == "plain":
        video = codec.vae.decode(v_hat).sample
    else:
        video = single_step_video(
            codec, z0, eps, v_hat, t, starts=torch.tensor([start]), motion_latents=0, t_thres=0.6,
            decode_latents=LATENTS,
        ).video  # fmt: skip
    loss = video.square().mean()
    forward = time.perf_counter()
    loss.backward()
    done = time.perf_counter()
    if not (v_hat.grad is not None and v_hat.grad[:, :, start:].abs().sum() > 0):
        raise ArithmeticError("no gradient reached the velocity")
    return {"forward_s": round(forward - began, 2), "backward_s": round(done - forward, 2)}


def measure(
    kind: str, size: int, start: int, way: Literal["checkpointed", "plain"], threads: int
) -> dict[str, Any]:
    """Measure one case under the profiler of torch's CPU allocator, and return its row beside the plan."""
    torch.set_num_threads(threads)
    codec = build(kind)
    if way == "plain":
        for block in codec.vae.decoder.modules():
            vars(block).pop("forward", None)
    recipe = recipe_of(kind, size, "fp32")
    side = size // recipe.codec.geometry.space
    z0 = torch.randn(1, recipe.codec.channels, start + LATENTS, side, side)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        seconds = run(codec, way, z0, start)
    now = peak = 0
    for event in profiler.profiler.kineto_results.events():  # type: ignore[union-attr]
        if event.name() == "[memory]":
            now += event.nbytes()
            peak = max(peak, now)
    planned = decode_bytes(recipe, LATENTS, 1)
    scale = (PAPER_SIZE / size) ** 2
    paper = replace(recipe, video=replace(recipe.video, size=PAPER_SIZE))
    row = {
        "codec": kind, "way": way, "size": size, "frames": 13, "start": start, "latents": LATENTS, "precision": "fp32",
        "threads": threads, **seconds, "peak_bytes": peak,
        "process_peak_bytes": 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "measured_scaled_to_512_bytes": round(peak * scale),
    }  # fmt: skip
    if way == "checkpointed":
        row |= {
            "planned_bytes": round(planned),
            "difference": planned / peak - 1,
            "planned_at_512_bytes": round(decode_bytes(paper, LATENTS, 1)),
            "planned_at_512_bf16_bytes": round(decode_bytes(recipe_of(kind, PAPER_SIZE, "bf16"), LATENTS, 1)),
        }
    return row


def add_parser(commands: argparse._SubParsersAction) -> None:
    """Add the command to `python -m perf`."""
    parser = commands.add_parser("pixel_losses", help="memory and time of the pixel losses through Wan's VAE")
    parser.add_argument("--codec", choices=list(KINDS), default="wan")
    parser.add_argument("--size", type=int, default=128, help="pixels (128)")
    parser.add_argument("--start", type=int, default=2, help="latents before the slice (2)")
    parser.add_argument("--way", choices=["checkpointed", "plain"], default="checkpointed")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, help="JSON file to which the row is added")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Print the row of one case, and add it to the file of ``--out``."""
    if args.out is not None:
        check_output(args.out)
    row = measure(args.codec, args.size, args.start, args.way, args.threads)
    settings = f"--codec {args.codec} --size {args.size} --start {args.start} --way {args.way} --threads {args.threads}"
    row |= {"command": f"python -m perf pixel_losses {settings}", "environment": environment()}
    print(json.dumps(row, indent=1))
    if args.out is not None:
        earlier = json.loads(args.out.read_text("utf-8"))["rows"] if args.out.is_file() else []
        args.out.write_text(json.dumps({"rows": [*earlier, row]}, indent=1) + "\n", "utf-8")
    return 0
