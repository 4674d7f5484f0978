"""`python -m perf unchanged`: prove that the numbers of two commits are the same to the bit.

Each commit's tree renders clips, trains every phase of the recipe `tiny` for 20 steps, builds pairs and dubs a video
through the command line alone, with first thread and fixed seeds. Losses, weights, shards and frames are compared. Both
sides train on the data of the first, so one difference does not cause the others.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import platform
import subprocess
import sys
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from perf.environment import ROOT, environment
from perf.unchanged_digests import digest, read_film
from perf.unchanged_side import CLIPS, SETTINGS, TALK, TRAININGS, Side


def add_parser(commands: Any) -> None:
    """Add the verb and its options."""
    parser = commands.add_parser(
        "unchanged", help="compare the numbers of two commits bit by bit", description=__doc__
    )
    parser.add_argument("--before", required=True, help="commit whose numbers are right")
    parser.add_argument("--after", default="HEAD", help="commit to compare with it (default HEAD)")
    parser.add_argument(
        "--phases",
        nargs="*",
        choices=list(TRAININGS),
        default=list(TRAININGS),
        help="trainings to compare (default: all)",
    )
    parser.add_argument("--keep", type=Path, help="folder that keeps the results of the commit before")
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run both sides and print the comparison. Return 1 if a result differs."""
    before, after = resolve(args.before), resolve(args.after)
    machine = environment()
    phases = list(args.phases)
    needed = ["generator", *phases] if "resumed" in phases else phases
    trainings = [name for name in TRAININGS if name in needed]
    parts = ["clips", "talk", "pairs", *trainings, "dub"]
    with tempfile.TemporaryDirectory(prefix="unchanged-") as name:
        folder = before_folder(args.keep or Path(name), before, machine)
        with _locked(folder):
            side_before = Side(folder, before)
            side_before.run(parts, _report)
        after_folder = Path(name) / "after"
        after_folder.mkdir()
        side_after = Side(after_folder, after, inputs=folder)
        side_after.run(parts, _report)
        rows = [
            row for part in parts for row in compare(part, side_before.parts[part], side_after.parts[part])
        ]
    identical = all(row["identical"] for row in rows if row["decides"])
    print_table(rows)
    result = {
        "command": " ".join(["python -m perf", *sys.argv[1:]]),
        "environment": machine,
        "commits": {"before": before, "after": after},
        "settings": {"clips": CLIPS, "train": SETTINGS, "talk": TALK, "trainings": TRAININGS},
        "seconds": {
            side: {part: parts_of[part]["seconds"] for part in parts}
            for side, parts_of in (("before", side_before.parts), ("after", side_after.parts))
        },
        "identical": identical,
        "rows": rows,
    }
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
    return 0 if identical else 1


def resolve(name: str) -> str:
    """Return the full hash of a commit. UserError if there is none of that name."""
    from xdub.errors import UserError

    command = ["git", "-C", str(ROOT), "rev-parse", "--verify", "--quiet", f"{name}^{{commit}}"]
    completed = subprocess.run(command, capture_output=True, text=True)
    if completed.returncode:
        raise UserError(f"{name} is not a commit of {ROOT}")
    return completed.stdout.strip()


def before_folder(keep: Path, commit: str, machine: dict[str, Any]) -> Path:
    """Return the folder of the side before.

    Sums depend on the processor's instructions and on torch's version, so a kept side is used only with both the same.
    """
    versions = (machine["cpu"], machine["torch"], platform.python_version())
    key = digest((SETTINGS, TRAININGS, CLIPS, TALK, *versions))
    folder = keep / f"{commit[:12]}-{key[:8]}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextmanager
def _locked(folder: Path) -> Generator[None]:
    """Wait until no other process runs the side in this folder, and keep others waiting meanwhile."""
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def compare(part: str, before: dict[str, Any], after: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each result of a part: both digests, whether they are identical, and by how much they differ.

    A result that only one side has is not identical. Rows with `decides` False are reported only: files and texts
    that may change while the numbers in them do not.
    """
    old, new = before["things"], after["things"]
    rows = []
    for name in [*old, *(name for name in new if name not in old)]:
        first, second = old.get(name), new.get(name)
        identical = bool(first and second) and first["digest"] == second["digest"]
        rows.append(
            {
                "thing": f"{part}: {name}",
                "before": first and first["digest"],
                "after": second and second["digest"],
                "identical": identical,
                "decides": (first or second or {})["decides"],
                "difference": None if identical else difference(name, first, second),
            }
        )
    return rows


def difference(name: str, first: dict[str, Any] | None, second: dict[str, Any] | None) -> str:
    """Describe how far two results that are not identical are apart."""
    if first is None or second is None:
        present = first or second or {}
        return present.get("error", f"only {'after' if first is None else 'before'}")
    if "losses" in first:
        return loss_difference(first["losses"], second["losses"])
    if "fields" in first:
        fields = [
            f for f in first["fields"] | second["fields"] if first["fields"].get(f) != second["fields"].get(f)
        ]
        return f"{len(fields)} of {len(first['fields'])} differ: {', '.join(fields)}"
    if name == "weights":
        return weights_difference(Path(first["file"]), Path(second["file"]))
    if name == "frames":
        return frames_difference(read_film(Path(first["file"]))[0], read_film(Path(second["file"]))[0])
    return "differs"


def loss_difference(first: Sequence[str], second: Sequence[str]) -> str:
    """Return the largest relative difference of two loss curves (floats as hex), and the first step that differs."""
    if len(first) != len(second):
        return f"{len(first)} and {len(second)} steps"
    step = next(step for step, (a, b) in enumerate(zip(first, second, strict=True), 1) if a != b)
    pairs = [(float.fromhex(a), float.fromhex(b)) for a, b in zip(first, second, strict=True)]
    largest = max(relative_difference(np.array([a]), np.array([b])) for a, b in pairs)
    return f"largest relative difference {largest:.1e}, first at step {step}"


def weights_difference(first: Path, second: Path) -> str:
    """Return the largest difference of two weight files' tensors, each relative to the tensor's largest value."""
    from safetensors.numpy import load_file

    old, new = load_file(first), load_file(second)
    if {name: value.shape for name, value in old.items()} != {
        name: value.shape for name, value in new.items()
    }:
        return "other names or shapes"
    largest = max(relative_difference(old[name], new[name]) for name in old)
    return f"largest relative difference {largest:.1e}"


def relative_difference(first: np.ndarray, second: np.ndarray) -> float:
    """Return the largest absolute difference of two arrays, divided by the largest absolute value of the first."""
    if np.array_equal(first, second, equal_nan=True):
        return 0.0
    scale = max(float(np.abs(first).max()), np.finfo(np.float64).tiny)
    return float(np.abs(first.astype(np.float64) - second).max()) / scale


def frames_difference(first: np.ndarray, second: np.ndarray) -> str:
    """Return the PSNR of two videos uint8 [F, H, W, 3], over all of their pixels."""
    if first.shape != second.shape:
        return f"shapes {first.shape} and {second.shape}"
    error = float(((first.astype(np.float64) - second) ** 2).mean())
    return "PSNR inf dB" if error == 0 else f"PSNR {10 * np.log10(255.0**2 / error):.1f} dB"


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """Print the rows as Markdown; results that do not decide are in brackets."""
    print("| result | before | after | identical | difference |")
    print("|---|---|---|---|---|")
    for row in rows:
        digests = [(row[side] or "-")[:12] for side in ("before", "after")]
        thing = row["thing"] if row["decides"] else f"({row['thing']})"
        text = " ".join((row["difference"] or "").split())[-300:]
        print(f"| {thing} | {' | '.join(digests)} | {'yes' if row['identical'] else 'NO'} | {text} |")
    deciding = [row for row in rows if row["decides"]]
    print(f"\n{sum(row['identical'] for row in deciding)} of {len(deciding)} results are identical")


def _report(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
