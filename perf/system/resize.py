"""`python -m perf resize`: continue a run with 2, then 1, then 4 workers, in ZeRO-2 and ZeRO-3, weights and adapters.

The runs are real runs of the recipe tiny: `generator` trains all weights, `lip` an adapter on the shipped editor. After
every third of its steps a run receives SIGTERM and is resumed with another number of workers. Its samples must be those
of a run that was never stopped. Its losses may differ by rounding, because sums over other groups of workers do.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from perf.environment import environment
from perf.system.recovery import SETTINGS, print_progress, render
from perf.system.victims import Run

WORKERS = (2, 1, 4)
"""Numbers of workers, one after the other."""


def add_parser(commands: Any) -> None:
    """Add the command `resize` and its options."""
    parser = commands.add_parser("resize", help="resume with other numbers of workers", description=__doc__)
    parser.add_argument("--steps", type=int, default=18, help="steps of a run (default 18)")
    parser.add_argument("--stages", type=int, nargs="*", default=[2, 3], help="ZeRO stages")
    parser.add_argument("--phases", nargs="*", default=["generator", "lip"])
    parser.add_argument("--clips", type=Path, help="data set for the generator; rendered if not given")
    parser.add_argument("--pairs", type=Path, help="data set for experts; built from the clips if not given")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run all phases and stages, print and write the result; return 1 if samples differ."""
    with tempfile.TemporaryDirectory(prefix="resize-") as name:
        folder = Path(name)
        clips = args.clips or render(folder / "clips")
        data = {"generator": clips}
        if args.phases != ["generator"]:
            pairs = args.pairs or _make_pairs(clips, folder / "pairs")
            data = {phase: pairs for phase in args.phases} | data
        rows = [
            _resized(folder, phase, stage, data[phase], args.steps)
            for phase in args.phases
            for stage in args.stages
        ]
    result: dict[str, Any] = {
        "command": " ".join(["python -m perf", *sys.argv[1:]]),
        "environment": environment(),
    }
    result |= {"settings": SETTINGS, "rows": rows}
    print("\n".join(json.dumps(row) for row in rows))
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if all(row["same_samples"] for row in rows) else 1


def _resized(folder: Path, phase: str, stage: int, data: Path, steps: int) -> dict[str, Any]:
    settings = [*SETTINGS, f"train.zero_stage={stage}", f"train.steps={steps}", "train.checkpoint_every=100"]
    options = [] if phase == "generator" else ["--base", str(_shipped("editor"))]
    whole = Run(folder / f"{phase}{stage}-whole", data, settings, phase=phase, options=options)
    whole.finish()
    run = whole
    for number, workers in enumerate(WORKERS):
        settings_of_run = [*settings, f"train.workers={workers}"]
        run = Run(folder / f"{phase}{stage}", data, settings_of_run, phase=phase, options=options)
        if number < len(WORKERS) - 1:
            run.wait_for_step(steps * (number + 1) // len(WORKERS))
            run.driver.terminate()
        run.finish()
    differences = [abs(a - b) / b for a, b in zip(run.losses(), whole.losses(), strict=True)]
    row: dict[str, Any] = {
        "phase": phase,
        "zero_stage": stage,
        "workers": run.workers(),
        "same_samples": [ids for *_, ids in run.curve()] == [ids for *_, ids in whole.curve()],
        "largest_relative_difference": max(differences),
    }
    print_progress(str(row))
    return row


def _shipped(name: str) -> Path:
    from xdub.config.shipped import shipped_weights

    return shipped_weights(f"{name}.safetensors")


def _make_pairs(clips: Path, out: Path) -> Path:
    print_progress("building pairs")
    command = [str(Path(sys.executable).with_name("xdub")), "pairs", "--recipe", "tiny", "--data", str(clips)]
    command += ["--out", str(out), "--generator", str(_shipped("generator"))]
    subprocess.run([*command, "--set", "pairs.render_twins=1.0"], check=True, capture_output=True)
    return out
