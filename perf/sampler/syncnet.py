"""`python -m perf syncnet`: a SyncNet of `xdub train syncnet`, and its accuracy on rendered people held out of it.

Heads are rendered and a network is trained by the commands of a user. Its accuracy is measured by the offset of sound
and picture, through the recipe's codec, with the clips' own sound and with another clip's. The check of the lip phase
is also applied to the network in the package and to random weights.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.environment import environment
from perf.system.mini import XDUB
from xdub.files.run_folder import RunFolder

if TYPE_CHECKING:
    from xdub.perception.syncnet.accuracy import SyncAccuracy
    from xdub.perception.syncnet.base import SyncExpert

SETTINGS = (
    "syncnet.size=64",
    "syncnet.width=16",
    "syncnet.global_batch=16",
    "syncnet.micro_batch=16",
    "syncnet.lr=1e-3",
    "syncnet.held_out=0.1",
    "syncnet.num_threads=1",
)
"""Changes of the recipe `tiny`."""
BATCH = 4
"""Clips that are measured together."""
PRINTED = (0, 1, 2, 3, 4, 6, 8, 10, 15)
"""Offsets in the printed table, in frames."""


def measure(
    network: SyncExpert,
    samples: Sequence[dict[str, Any]],
    codec: Any,
    *,
    frames: int | None = None,
    foreign: bool = False,
) -> SyncAccuracy:
    """Measure a network on the clips, or on their first ``frames`` frames, seen through the codec.

    Args:
        network: see `xdub.perception.syncnet.base.SyncExpert`.
        samples: fields of `xdub.data.windows.cut_window`.
        codec: see `xdub.model.codec.Codec`.
        frames: None measures whole windows.
        foreign: give every clip the sound of the next one, of which none is right.
    """
    import torch

    from xdub.train.syncnet_batch import accuracy_through_codec

    if foreign:
        sounds = [sample["sound"] for sample in samples]
        pairs = zip(samples, sounds[1:] + sounds[:1], strict=True)
        samples = [sample | {"sound": sound} for sample, sound in pairs]
    return accuracy_through_codec(network, samples, codec, BATCH, torch.device("cpu"), frames)


def row(name: str, accuracy: SyncAccuracy) -> dict[str, Any]:
    """Return an accuracy as a row of the result."""
    return {
        "sound": name,
        "windows": accuracy.windows,
        "choice": round(accuracy.choice, 4),
        "best_offset": round(accuracy.best_offset, 4),
        "accuracy": [round(value, 4) for value in accuracy.accuracy],
    }


def compare(weights: Path, data: Path, settings: Sequence[str]) -> dict[str, Any]:
    """Measure the trained network on held-out people, and ``choice`` of the package's and of a random network."""
    import torch

    from xdub.config import load_recipe
    from xdub.data.samples import SampleMaker, StreamSpec
    from xdub.model.codec import load_codec
    from xdub.perception.syncnet.load import load_sync, load_sync_file

    recipe = load_recipe("tiny", settings)
    codec = load_codec(recipe.codec)
    maker = SampleMaker(StreamSpec.from_recipe(recipe, "syncnet", [str(data)]))
    samples = maker.held_out(10_000)
    network = load_sync_file(weights)
    lip_frames = recipe.codec.geometry.frames(recipe.phase("lip").decode_latents)
    rows = [
        row("its own, all frames of a window", measure(network, samples, codec)),
        row(
            f"its own, the {lip_frames} frames of the lip phase",
            measure(network, samples, codec, frames=lip_frames),
        ),
        row("another clip's", measure(network, samples, codec, foreign=True)),
    ]
    torch.manual_seed(0)
    random = load_sync_file(weights)
    for parameter in random.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    others = {"in the package": load_sync(recipe.perception), "random weights": random}
    choices = {
        name: round(measure(other, samples, codec, frames=lip_frames).choice, 4)
        for name, other in others.items()
    }
    return {"held_out_clips": len(samples), "by": maker.order.held_out_by, "rows": rows, "choice": choices}


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print the accuracies by offset as Markdown."""
    print(f"| sound | {' | '.join(map(str, PRINTED))} | `choice` |")
    print("|---|" + "---:|" * (len(PRINTED) + 1))
    for entry in rows:
        cells = [f"{entry['accuracy'][offset]:.2f}" for offset in PRINTED]
        print(f"| {entry['sound']} | {' | '.join(cells)} | {entry['choice']:.2f} |")


def add_parser(commands: Any) -> None:
    """Add the command `syncnet` and its options."""
    parser = commands.add_parser("syncnet", help="accuracy of a SyncNet of one's own", description=__doc__)
    parser.add_argument("--clips", type=int, default=90, help="rendered heads; each has a twin (default: 90)")
    parser.add_argument("--steps", type=int, default=500, help="steps of training (default: 500)")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Render, train and measure; return 1 after a failed command."""
    settings = [*SETTINGS, f"syncnet.steps={args.steps}"]
    with tempfile.TemporaryDirectory(prefix="syncnet-") as scratch:
        folder = Path(scratch).resolve()
        words = [word for setting in settings for word in ("--set", setting)]
        seconds = {}
        for verb in (
            ["render", "--out", "ds", "--clips", str(args.clips)],
            ["train", "syncnet", "--recipe", "tiny", "--data", "ds", "--out", "run", *words],
        ):
            begin = time.monotonic()
            if subprocess.run([sys.executable, "-c", XDUB, *verb], cwd=folder, check=False).returncode:
                return 1
            seconds[verb[0]] = round(time.monotonic() - begin)
        export = RunFolder(folder / "run").phase("syncnet").export
        result = compare(export / "model.safetensors", folder / "ds", settings)
    print_table(result["rows"])
    print(", ".join(f"{name}: {choice:.0%}" for name, choice in result["choice"].items()))
    result |= {"seconds": seconds, "settings": settings}
    result |= {"command": " ".join(["python -m perf", *sys.argv[1:]]), "environment": environment()}
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0
