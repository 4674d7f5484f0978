"""`python -m perf COMMAND`: benchmarks of kernels and of the whole system, with correctness before speed."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence

FOLDERS = {
    "kernels": ("run", "static", "tune", "compare", "report", "plot"),
    "system": (
        "data",
        "scale",
        "pool",
        "submit",
        "recovery",
        "resize",
        "elastic",
        "checkpoint",
        "tracking",
        "names",
        "mini",
        "mutations",
        "screening",
        "stages",
        "masks",
    ),
    "step": ("step", "pixel_losses"),
    "sampler": ("sampler", "segments", "identity", "speech_features", "syncnet"),
}
COMMANDS = {name: f"perf.{folder}.{name}" for folder, names in FOLDERS.items() for name in names}
COMMANDS["unchanged"] = "perf.unchanged"
"""Module of every command. Only the module of the requested command is imported: a rented GPU has few packages."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    parser = argparse.ArgumentParser(prog="python -m perf", description=__doc__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for name in words[:1] if words and words[0] in COMMANDS else COMMANDS:
        importlib.import_module(COMMANDS[name]).add_parser(commands)
    args = parser.parse_args(words)
    return args.main(args)


if __name__ == "__main__":
    sys.exit(main())
