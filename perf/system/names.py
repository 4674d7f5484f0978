"""`python -m perf names`: every verb with drawn file names, and a check that nothing else on the disk changes.

A name is used for a source video, its sound, a data set, a run folder, a folder of pairs, a model folder and a dubbed
video. The current folder, HOME and TMPDIR are folders of the check, so a file that a verb writes there is a failure,
like a verb that does not return 0, a step that the tracker does not have, and a moved run that writes at its old place.

Training and pairs run in this process, without Ray; the first ``--ray`` names use Ray and its workers.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import io
import json
import os
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from perf.environment import environment
from perf.system.drawn_names import Tree, changes, draw_names, listing

if TYPE_CHECKING:
    from xdub.pairs.judges import Judges

CLIP = ("video.clip_frames=25",)
"""Settings of all data: clips of one window."""
SETTINGS = (
    *CLIP,
    "pairs.sampler_steps=1",
    "model.num_layers=1",
    "train.global_batch=2",
    "train.micro_batch=2",
    "train.num_threads=1",
    "train.sample_every=4",
    "train.checkpoint_every=2",
)
"""Settings of every training: the smallest model, and one strip at step 4."""
STEPS = 4
MOST_LINES = 8
"""Largest number of printed lines of a name; the result file has all."""


class Sandbox:
    """Folders of the check: ``work`` is the current folder, and HOME and TMPDIR are beside it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.work, self.inputs = root / "work", root / "inputs"
        for folder in (self.work, self.inputs, root / "home", root / "tmp"):
            folder.mkdir()
        os.environ.update(HOME=str(root / "home"), TMPDIR=str(root / "tmp"))
        for variable in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
            os.environ.pop(variable, None)
        tempfile.tempdir = None
        os.chdir(self.work)

    def prepare(self) -> None:
        """Render the clip to prepare and dub, and write its video and a short sound."""
        from xdub.media import write_video

        talk = self.inputs / "talk"
        _xdub(
            "render",
            f"--out={talk}",
            "--clips=1",
            "--seed=1",
            "--workers=1",
            "--set=video.size=256",
            "--set=video.crop_scale=1.4",
            *_set(CLIP),
        )
        import pyarrow.parquet as pq

        row = pq.read_table(next(talk.glob("shard-*.parquet")), partitioning=None).to_pylist()[0]
        (self.inputs / "talk.mp4").write_bytes(row["frames"])
        import numpy as np

        from xdub.media import read_video

        sound = np.frombuffer(row["audio"]["data"], np.float32)
        frames = list(read_video(self.inputs / "talk.mp4", fps=25))
        write_video(self.inputs / "source.mp4", iter(frames), fps=25, audio=sound, audio_rate=16_000, crf=20)
        write_video(
            self.inputs / "speech.mp4",
            iter(frames[:8]),
            fps=25,
            audio=sound[:5120],
            audio_rate=16_000,
            crf=20,
        )
        _xdub("render", f"--out={self.inputs / 'heads'}", "--clips=1", "--workers=1", *_set(CLIP))

    def without_caches(self, tree: Tree) -> Tree:
        """Leave out the caches, whose file names are digests, and Ray's token and sessions."""
        folders = ("home/.cache/xdub", "home/.ray", "tmp/ray", f"tmp/xdub-{os.getuid()}")
        caches = tuple(str(self.root / folder) for folder in folders)
        return {path: entry for path, entry in tree.items() if not path.startswith(caches)}


class Failure(Exception):
    """A check that a name did not pass."""


def run_name(sandbox: Sandbox, name: str, *, ray: bool, render: bool) -> list[str]:
    """Run every verb with one name; return a line for each failure."""
    from xdub.model.bundle import bundle_path

    own = sandbox.work / name
    before = listing(sandbox.root, own)
    failures: list[str] = []
    try:
        own.mkdir()
        last = name if len(name.encode()) < 60 else "run"
        run, source, sound = f"{name}/{last}", own / f"{name}.mp4", own / f"{name}.wav"
        shutil.copyfile(sandbox.inputs / "source.mp4", source)
        shutil.copyfile(sandbox.inputs / "speech.mp4", sound)
        shutil.copytree(bundle_path("tiny"), own / "model")
        recipe = own / "model" / "recipe.yaml"
        recipe.write_text(recipe.read_text("utf-8").replace("sampler_steps: 12", "sampler_steps: 1"), "utf-8")
        if render:
            _xdub("render", f"--out={name}/heads", "--clips=1", "--workers=1", *_set(CLIP))
        else:
            shutil.copytree(sandbox.inputs / "heads", own / "heads")
        _xdub(
            "prepare",
            "--recipe=tiny",
            f"--out={name}/clips",
            f"--workers={1 + ray}",
            *_set(CLIP),
            "--",
            f"{name}/{name}.mp4",
        )
        _expect_rows(own / "clips")
        _train(f"{name}/heads", run, STEPS, ray=ray, resume=False)
        # Pairs in a run folder are a stage of the run; elsewhere they have a database of their own.
        _pairs(run, f"{name}/heads", f"{name if render else run}/pairs", ray=ray)
        _xdub(
            "dub",
            f"--video={name}/{name}.mp4",
            f"--audio={name}/{name}.wav",
            f"--out={name}/dub-{last}.mp4",
            f"--model={name}/model",
        )
        _xdub("runs", "compare", f"--out={name}/compare.html", "--", run, f"{run}/generator")
        _expect_steps(run, STEPS)
        moved = f"{name}/moved {last}"
        os.rename(run, moved)
        _train(f"{name}/heads", moved, STEPS + 1, ray=False, resume=True)
        _expect_steps(moved, STEPS + 1)
        if Path(run).exists():
            failures.append(f"the moved run wrote at its old place: {sorted(map(str, Path(run).rglob('*')))}")
    except Failure as error:
        failures.append(str(error))
    except Exception:
        failures.append(traceback.format_exc(limit=-4))
    shutil.rmtree(own, ignore_errors=True)
    failures += changes(sandbox.without_caches(before), sandbox.without_caches(listing(sandbox.root, own)))
    return failures


def _xdub(*arguments: str) -> None:
    """Run the command line in this process; raise Failure with its output unless it returns 0."""
    from xdub.cli import app
    from xdub.cli.errors import run_app

    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
        code = run_app(app, list(arguments))
    if code:
        raise Failure(f"xdub {list(arguments)} ended with {code}: {output.getvalue()[-1500:]}")


def _set(settings: Sequence[str]) -> list[str]:
    return [f"--set={text}" for text in settings]


def _train(data: str, run: str, steps: int, *, ray: bool, resume: bool) -> None:
    if ray:
        settings = _set((*SETTINGS, f"train.steps={steps}"))
        _xdub("train", "generator", "--recipe=tiny", f"--data={data}", f"--out={run}", *settings)
        return
    from xdub.config import load_recipe
    from xdub.train.run import train_phase

    recipe = load_recipe("tiny", [*SETTINGS, f"train.steps={steps}"])
    output = io.StringIO()
    with contextlib.redirect_stderr(output):
        train_phase("generator", recipe, data, run, local=True, resume=resume, progress=lambda _: None)
    if output.getvalue():
        raise Failure(f"training printed: {output.getvalue()[-1500:]}")


def _pairs(run: str, data: str, out: str, *, ray: bool) -> None:
    if ray:
        _xdub(
            "pairs", "--recipe=tiny", f"--generator={run}", f"--data={data}", f"--out={out}", *_set(SETTINGS)
        )
        return
    from xdub.config import load_recipe
    from xdub.pairs.factory import build_pairs

    recipe = load_recipe("tiny", SETTINGS)
    tracked_in = run if Path(out).parent == Path(run) else out
    build_pairs(recipe, run, data, out, local=True, tracked_in=tracked_in, judges=_judges())


@functools.cache
def _judges() -> Judges:
    """Load the networks of the filters once, because no file name concerns them."""
    from xdub.config import load_recipe
    from xdub.pairs.judges import load_judges

    return load_judges(load_recipe("tiny", SETTINGS).perception)


def _expect_rows(data: Path) -> None:
    from xdub.data.ledger import Ledger

    rows = list(Ledger(data).rows())
    if not any(row.status == "kept" for row in rows):
        raise Failure(f"prepare kept no clip: {rows}")


def _expect_steps(run: str, steps: int) -> None:
    """Raise Failure unless the tracker has every step's metrics and the strip of the run."""
    from xdub.files.run_folder import RunFolder
    from xdub.tracking.read import read_runs

    (tracked,) = read_runs([f"{run}/generator"])
    last = max(tracked.curves.get("loss/flow", tracked.curves.get("train/loss", ([0], [])))[0])
    if (last, tracked.status) != (steps, "FINISHED"):
        raise Failure(f"the tracker has step {last} of {steps}, status {tracked.status}")
    if not list(RunFolder(run).artifacts.rglob("step00000004.png")):
        raise Failure("the tracker has no strip")


def add_parser(commands: Any) -> None:
    """Add the command `names` and its options."""
    parser = commands.add_parser("names", help="every verb with drawn file names", description=__doc__)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--ray", type=int, default=2, help="number of names that also use Ray (default 2)")
    parser.add_argument(
        "--render", type=int, default=10, help="render with the first name of so many (default 10)"
    )
    parser.add_argument("--json", type=Path, help="write the result to this file")
    parser.set_defaults(main=main)


@contextlib.contextmanager
def _sandbox() -> Iterator[Sandbox]:
    before = os.getcwd()
    with tempfile.TemporaryDirectory(prefix="names-", dir="/tmp") as folder:
        try:
            yield Sandbox(Path(folder).resolve())
        finally:
            os.chdir(before)


def main(args: argparse.Namespace) -> int:
    """Run all names, print every failure and a summary; return 1 after a failure."""
    json_file = args.json.resolve() if args.json else None
    result = run(draw_names(args.count, args.seed), ray=args.ray, every=args.render)
    result |= {"command": " ".join(["python -m perf", *sys.argv[1:]]), "environment": environment()}
    if json_file:
        json_file.write_text(json.dumps(result, indent=1) + "\n")
    print(f"{args.count} names, {len(result['failures'])} with a failure, {result['seconds']:.0f} s")
    return int(bool(result["failures"]))


def run(names: Sequence[str], *, ray: int, every: int) -> dict[str, Any]:
    """Run the names after a plain one, which fills the caches; return names, failures and seconds."""
    begin, failures = time.monotonic(), {}
    with _sandbox() as sandbox:
        from xdub.runtime_env import prepare_environment

        prepare_environment()
        with contextlib.suppress(ImportError):
            # Triton's LLVM crashes the interpreter if it is loaded after Mesa's (llvmpipe).
            import triton._C.libtriton  # noqa: F401
        sandbox.prepare()
        # Caches, such as matplotlib's list of fonts, are written once.
        run_name(sandbox, "plain", ray=False, render=False)
        for number, name in enumerate(names):
            lines = run_name(sandbox, name, ray=number < ray, render=number % every == 0)
            if lines:
                failures[name] = lines
                print(f"{number}: {name!r}\n  " + "\n  ".join(lines[:MOST_LINES]), flush=True)
            print(
                f"{number + 1} of {len(names)}, {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True
            )
    return {"names": list(names), "failures": failures, "seconds": round(time.monotonic() - begin)}
