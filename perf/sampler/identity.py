"""`python -m perf identity`: cosines of one person and of different people, for the thresholds of the pair filter.

Rendered people that no training set may hold appear in several takes. For every take, V' is the rendered twin, the
twin after the codec's round trip, and the generator's dub of V with the twin's speech: three true pairs. False pairs
combine V with every V' of another person. A pair's value is the mean cosine over frames, as the filter computes it.
Every seed has its own people: the thresholds were chosen on the first one and hold or fail on the others.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from perf.environment import environment
from perf.sampler.segments import dub
from xdub.config import EMBEDDERS, PerceptionConfig
from xdub.report.palette import ACCENT, SECOND

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from xdub.model.bundle import Bundle
    from xdub.perception.identity.base import Identity
    from xdub.render.clips import RenderedPair

TRUE_KINDS = {"twin": "rendered twin", "codec": "twin through the codec", "dub": "generator's dub"}
"""Kinds of V' of the same person."""
EVERY = 6
"""Every n-th frame is embedded, as the pair filter does."""
BATCH = 8
"""Clips that are dubbed together."""


def add_parser(commands: Any) -> None:
    """Add the command `identity` and its options."""
    parser = commands.add_parser(
        "identity", help="cosines of one person and of different people", description=__doc__
    )
    parser.add_argument(
        "--model", default="tiny", help="model folder with a generator (default: the shipped)"
    )
    parser.add_argument("--people", type=int, default=64, help="rendered people (default 64)")
    parser.add_argument("--takes", type=int, default=2, help="takes of every person, at most 4 (default 2)")
    parser.add_argument("--frames", type=int, default=25, help="frames of every clip (default 25)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument(
        "--embedders", nargs="+", default=["mobilefacenet", "dlib"], choices=list(EMBEDDERS), metavar="NAME"
    )
    parser.add_argument("--arcface", help="weights of ArcFace, if it is one of the embedders")
    parser.add_argument("--json", type=Path, help="write the result to this file, and its picture beside it")
    parser.set_defaults(main=main)


def main(args: argparse.Namespace) -> int:
    """Render, dub, embed, print and write the result; return the exit code."""
    from xdub.errors import UserError
    from xdub.model.bundle import load_bundle
    from xdub.perception.identity.load import load_identity

    bundle = load_bundle(args.model)
    if bundle.generator is None:
        raise UserError(f"{args.model} has no generator.safetensors; `xdub bootstrap` writes both")
    networks = {
        name: load_identity(
            PerceptionConfig(identity=name, identity_path=args.arcface if name == "arcface" else None)
        )
        for name in args.embedders
    }
    values = {seed: measure(bundle, networks, seed, args) for seed in args.seeds}
    result = {
        "command": " ".join(["python -m perf", *sys.argv[1:]]),
        "environment": environment(),
        "model": str(args.model),
        "settings": {
            "people_per_seed": args.people,
            "takes": args.takes,
            "frames": args.frames,
            "size": bundle.recipe.video.size,
        },
        "seeds": {
            str(seed): {
                name: summarise(cosines, EMBEDDERS[name].threshold) for name, cosines in by_name.items()
            }
            for seed, by_name in values.items()
        },
    }
    print_table(result)
    if args.json:
        args.json.write_text(json.dumps(result, indent=1) + "\n")
        figure(values[args.seeds[0]]).savefig(args.json.with_suffix(".png"))
    return 0


def measure(
    bundle: Bundle, networks: dict[str, Identity], seed: int, args: argparse.Namespace
) -> dict[str, dict[str, np.ndarray]]:
    """Return the values of one seed's people: embedder -> `pair_cosines`."""
    people: list[int] = []
    vectors: dict[str, dict[str, list[np.ndarray]]] = {name: {} for name in networks}
    for pairs in _batches(bundle, seed, args):
        people += [pair.identity for pair in pairs]
        for kind, films in {"source": [p.clip.frames for p in pairs], **references(bundle, pairs)}.items():
            for name, network in networks.items():
                vectors[name].setdefault(kind, []).extend(embed(network, pairs, films))
        clips = args.people * args.takes
        print(f"seed {seed}: {len(people)} of {clips} clips", file=sys.stderr, flush=True)
    numbers = np.array(people)
    return {
        name: pair_cosines({kind: np.stack(v) for kind, v in kinds.items()}, numbers)
        for name, kinds in vectors.items()
    }


def _batches(bundle: Bundle, seed: int, args: argparse.Namespace) -> Iterator[list[RenderedPair]]:
    """Render the takes of all people, `BATCH` clips at a time."""
    from xdub.render.clips import FIRST_HELD_OUT, TAKES, make_clips
    from xdub.seeding import stable_seed

    video = bundle.recipe.video
    numbers = [
        FIRST_HELD_OUT + person * TAKES + take for person in range(args.people) for take in range(args.takes)
    ]
    clips = make_clips(
        stable_seed("identity", seed) % 2**31,
        numbers,
        size=video.size,
        frames=args.frames,
        crop_scale=video.crop_scale,
    )
    batch: list[RenderedPair] = []
    for pair in clips:
        batch.append(pair)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch


def references(bundle: Bundle, pairs: Sequence[RenderedPair]) -> dict[str, list[np.ndarray]]:
    """Return V' uint8 [F, S, S, 3] of every pair by its kind."""
    from xdub.evaluate.opening import round_trip

    twins = [pair.twin.frames for pair in pairs]
    return {
        "twin": twins,
        "codec": [round_trip(film, bundle.codec) for film in twins],
        "dub": dub(bundle, pairs, bundle.recipe.pairs.segment_frames, 0),
    }


def embed(network: Identity, pairs: Sequence[RenderedPair], films: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Return unit vectors [N, D] of every `EVERY`-th frame; V's landmarks align V', as in the pair filter."""
    return [
        network.embed(film[::EVERY], pair.clip.landmarks[::EVERY])
        for pair, film in zip(pairs, films, strict=True)
    ]


def pair_cosines(vectors: dict[str, np.ndarray], people: np.ndarray) -> dict[str, np.ndarray]:
    """Return the values of the true pairs by kind, and of all pairs of different people as ``others``.

    Args:
        vectors: "source" and every kind -> unit vectors [clips, N, D].
        people: number of the person of every clip.
    """
    source = vectors["source"]
    different = people[:, None] != people[None]
    values, others = {}, []
    for kind in TRUE_KINDS:
        # Cosine of every V and every V', mean over frames.
        table = np.einsum("ifd,jfd->ij", source, vectors[kind]) / source.shape[1]
        values[kind] = np.diag(table)
        others.append(table[different])
    return values | {"others": np.concatenate(others)}


def summarise(values: dict[str, np.ndarray], threshold: float) -> dict[str, Any]:
    """Return numbers of pairs, quantiles, error rates at the threshold, and the thresholds of fixed error rates.

    ``by_threshold`` has [false accepts, false rejects] of other thresholds.
    """
    true = np.concatenate([values[kind] for kind in TRUE_KINDS])
    kinds = {
        kind: {
            "pairs": len(value),
            "mean": round(float(value.mean()), 4),
            "min": round(float(value.min()), 4),
            "p05": round(float(np.quantile(value, 0.05)), 4),
            "p99": round(float(np.quantile(value, 0.99)), 4),
            "max": round(float(value.max()), 4),
        }
        for kind, value in values.items()
    }
    return {
        "threshold": threshold,
        "false_accepts": round(float((values["others"] >= threshold).mean()), 5),
        "false_rejects": round(float((true < threshold).mean()), 5),
        "false_rejects_by_kind": {
            kind: round(float((values[kind] < threshold).mean()), 5) for kind in TRUE_KINDS
        },
        "threshold_of_1_percent_false_accepts": round(float(np.quantile(values["others"], 0.99)), 4),
        "threshold_of_5_percent_false_rejects": round(float(np.quantile(true, 0.05)), 4),
        "by_threshold": {
            f"{value:.2f}": [
                round(float((values["others"] >= value).mean()), 5),
                round(float((true < value).mean()), 5),
            ]
            for value in np.arange(0.5, 0.995, 0.01).round(2)
        },
        "cosines": kinds,
    }


def print_table(result: dict[str, Any]) -> None:
    """Print the tables as Markdown."""
    print("| seed | embedder | pairs | number | mean | min | 5 % | 99 % | max |")
    print("|---:|---|---|---:|---:|---:|---:|---:|---:|")
    rows = [(seed, name, row) for seed, by_name in result["seeds"].items() for name, row in by_name.items()]
    for seed, name, row in rows:
        for kind, cosines in row["cosines"].items():
            title = TRUE_KINDS.get(kind, "different people")
            cells = " | ".join(f"{cosines[key]:.3f}" for key in ("mean", "min", "p05", "p99", "max"))
            print(f"| {seed} | {name} | {title} | {cosines['pairs']} | {cells} |")
    print(
        "\n| seed | embedder | threshold | false accepts | false rejects | 1 % accepts at | 5 % rejects at |"
    )
    print("|---:|---|---:|---:|---:|---:|---:|")
    for seed, name, row in rows:
        print(
            f"| {seed} | {name} | {row['threshold']:g} | {row['false_accepts']:.2%} | {row['false_rejects']:.2%} "
            f"| {row['threshold_of_1_percent_false_accepts']:.3f} "
            f"| {row['threshold_of_5_percent_false_rejects']:.3f} |"
        )


def figure(values: dict[str, dict[str, np.ndarray]]) -> Figure:
    """Draw the distributions of true pairs and of different people, a panel an embedder."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    chart = Figure(figsize=(5.5 * len(values), 3.6), dpi=130, layout="constrained")
    FigureCanvasAgg(chart)
    for axes, (name, kinds) in zip(
        chart.subplots(1, len(values), squeeze=False)[0], values.items(), strict=True
    ):
        true = np.concatenate([kinds[kind] for kind in TRUE_KINDS])
        bins = np.linspace(min(kinds["others"].min(), true.min()), 1, 61).tolist()
        for label, value, colour in (
            (f"different people ({len(kinds['others'])})", kinds["others"], SECOND),
            (f"one person, V and V' ({len(true)})", true, ACCENT),
        ):
            axes.hist(value, bins=bins, density=True, alpha=0.6, color=colour, label=label)
        threshold = EMBEDDERS[name].threshold
        axes.axvline(
            threshold, color="black", linewidth=1.2, linestyle="--", label=f"threshold {threshold:g}"
        )
        axes.set_title(name, fontsize=10, loc="left")
        axes.set_xlabel("mean cosine over frames", fontsize=9)
        axes.set_yticks([])
        axes.spines[["top", "right", "left"]].set_visible(False)
        axes.legend(frameon=False, fontsize=8, loc="upper left")
    return chart
