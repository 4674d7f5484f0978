"""`python -m perf compare OLD NEW`: find rows that are slower beyond the noise, on the same kind of machine."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from perf import rows

SLOWER = 0.03
"""Smallest relative slowdown that counts."""
CEILING_DRIFT = 0.03
"""Largest relative change of a ceiling between two comparable files."""


def obstacle(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> str | None:
    """Return why the two files can't be compared; None if they can."""
    for name, measured in (("old", old), ("new", new)):
        if not measured:
            return f"the {name} file has no measured rows"
    gpus = [measured[0]["environment"]["gpu"] for measured in (old, new)]
    if gpus[0] != gpus[1]:
        return f"different GPUs: {gpus[0]} and {gpus[1]}"
    for name, before in old[0]["ceilings"].items():
        after = new[0]["ceilings"].get(name, 0.0)
        if abs(after / before - 1) > CEILING_DRIFT:
            return f"the machine itself changed: {name} {before:.0f} -> {after:.0f}"
    return None


def changes(old: list[dict[str, Any]], new: list[dict[str, Any]]) -> list[tuple[dict[str, Any], float, bool]]:
    """Return (new row, ratio of medians new / old, slower beyond max(3 %, 3 x noise)) for rows in both files."""
    before = {rows.key(row): row for row in old}
    pairs = []
    for row in new:
        earlier = before.get(rows.key(row))
        if earlier is not None:
            ratio = row["p50_ms"] / earlier["p50_ms"]
            allowed = max(SLOWER, 3 * max(row["noise"], earlier["noise"]))
            pairs.append((row, ratio, ratio > 1 + allowed))
    return pairs


def add_parser(commands: Any) -> None:
    """Add the command `compare` and its options."""
    parser = commands.add_parser("compare", help="find regressions between two result files of one GPU")
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Run the command; return its exit code."""
    try:
        old, new = (rows.measured(rows.read(path)) for path in (args.old, args.new))
    except (OSError, ValueError) as error:
        print(error, file=sys.stderr)
        return 2
    if reason := obstacle(old, new):
        print(f"not comparable: {reason}", file=sys.stderr)
        return 2
    worse = 0
    for row, ratio, slower in changes(old, new):
        worse += slower
        mark = "SLOWER" if slower else ""
        print(
            f"{row['kernel']:24s}{row['shape']:18s}{row['mode']:5s}{row['provider']:28s}{ratio:7.3f}  {mark}"
        )
    print(f"{worse} regressions")
    return 1 if worse else 0
