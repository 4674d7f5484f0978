"""One side of `python -m perf unchanged`: the tree of a commit in a scratch folder, and the commands that it runs."""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import time
import wave
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from perf.environment import ROOT
from perf.unchanged_digests import (
    Thing,
    array_digest,
    data_set_things,
    file_digest,
    read_film,
    read_rows,
    thing,
    training_things,
)

TRAININGS: dict[str, tuple[str, tuple[str, ...]]] = {
    "generator": ("generator", ()),
    "editor": ("editor", ()),
    "lip": ("lip", ("phases.lip.steps=20",)),
    "texture": ("texture", ("phases.texture.steps=20",)),
    "sharded": ("generator", ("train.workers=2", "train.zero_stage=2")),
    "resumed": ("generator", ("train.steps=25",)),
}
"""Phase and extra settings of each training. `sharded` has two workers in ZeRO-2; `resumed` continues a checkpoint of
the generator that the tree before has written."""
SETTINGS = (
    "train.steps=20",
    "train.global_batch=4",
    "train.micro_batch=2",
    "train.num_threads=1",
    "train.log_every=1",
    "train.sample_every=10",
)
"""Settings of every training: few samples a step, two micro-batches, one thread, and every step's metrics logged."""
CLIPS = 4
"""Rendered clips; each has a twin, so there are eight rows to train on and to build pairs from."""
TALK = ("video.size=256", "video.crop_scale=1.4")
"""Settings of the clip that is dubbed: large enough for the face tracker, with a margin around the face."""
SECONDS = 1800.0
"""Longest time of one command."""
VARIABLES = {
    **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
    **dict.fromkeys(("CUDA_VISIBLE_DEVICES", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"), ""),
    "PYTHONHASHSEED": "0",
    "PYTHONDONTWRITEBYTECODE": "1",
}
"""Environment of every command: one thread, no GPU, a Ray and a tracking store of its own."""
LAUNCHER = """
import pathlib, sys, xdub
tree = sys.argv.pop(1)
assert pathlib.Path(xdub.__file__).is_relative_to(tree), f"{xdub.__file__} is not in {tree}"
from xdub.cli import main
main()
"""
"""Source of the console script `xdub`, with a check that the package is that of the tree."""


class Side:
    """The tree of one commit, and the results of its commands.

    `FOLDER/result.json` holds the digests of all parts that are done, so an interrupted side continues and a finished
    one is only read.
    """

    def __init__(self, folder: Path, commit: str, inputs: Path | None = None) -> None:
        """``inputs``: folder of the other side, whose data this one trains on; its own if not given."""
        self.folder, self.commit = folder.resolve(), commit
        self._inputs, self._strict = (inputs or folder).resolve(), inputs is None
        self._tree, self._record = self.folder / "tree", self.folder / "result.json"
        self.parts: dict[str, dict[str, Any]] = (
            json.loads(self._record.read_text("utf-8")) if self._record.is_file() else {}
        )

    def run(self, names: Sequence[str], report: Callable[[str], None]) -> None:
        """Run the parts without a result. Without ``inputs`` a failed command raises; otherwise it is recorded."""
        for name in names:
            if name in self.parts:
                continue
            if not self._tree.is_dir():
                export_tree(self.commit, self._tree)
            begin = time.monotonic()
            try:
                things = self._part(name)
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                if self._strict:
                    raise
                things = {"failure": thing(str(error), error=str(error)[-2000:])}
            seconds = round(time.monotonic() - begin, 1)
            report(f"{self.commit[:8]}: {name}, {seconds:.0f} s")
            self.parts[name] = {"seconds": seconds, "things": things}
            temporary = self._record.with_suffix(".tmp")
            temporary.write_text(json.dumps(self.parts, indent=1), "utf-8")
            os.replace(temporary, self._record)

    def _part(self, name: str) -> dict[str, Thing]:
        if name in TRAININGS:
            return self._train(name)
        return {"clips": self._clips, "talk": self._talk, "pairs": self._pairs, "dub": self._dub}[name]()

    def _clips(self) -> dict[str, Thing]:
        out = self._fresh("clips")
        self._xdub("render", "--out", out, "--clips", CLIPS, "--seed", 0, "--workers", 1)
        return data_set_things(out)

    def _talk(self) -> dict[str, Thing]:
        """Render the clip to dub, and write its video and its twin's speech as files."""
        out = self._fresh("talk")
        self._xdub("render", "--out", out, "--clips", 1, "--seed", 1, "--workers", 1, *_set(TALK))
        source, twin = read_rows(sorted(out.glob("shard-*.parquet")))
        (self.folder / "talk.mp4").write_bytes(source["frames"])
        sound = np.frombuffer(twin["audio"]["data"], np.float32)
        with wave.open(str(self.folder / "speech.wav"), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(16_000)
            file.writeframes((sound * 32767).round().astype("<i2").tobytes())
        return data_set_things(out)

    def _pairs(self) -> dict[str, Thing]:
        out, clips = self._fresh("pairs"), self._inputs / "clips"
        self._xdub("pairs", "--recipe", "tiny", "--generator", "tiny", "--data", clips, "--out", out)
        return data_set_things(out)

    def _dub(self) -> dict[str, Thing]:
        out = self._fresh("dubbed.mp4")
        talk, speech = self._inputs / "talk.mp4", self._inputs / "speech.wav"
        self._xdub("dub", "--video", talk, "--audio", speech, "--out", out)
        frames, sound = read_film(out)
        return {
            "frames": thing(array_digest(frames), file=str(out)),
            "sound": thing(array_digest(sound)),
            "file": thing(file_digest(out), decides=False),
        }

    def _train(self, name: str) -> dict[str, Thing]:
        phase, settings = TRAININGS[name]
        out = self._fresh(f"run-{name}")
        data = self._inputs / ("clips" if phase == "generator" else "pairs")
        command = ["train", phase, "--recipe", "tiny", "--data", data, "--out", out]
        if phase in ("lip", "texture"):
            command += ["--base", self._editor()]
        if name == "resumed":
            shutil.copytree(self._inputs / "run-generator", out)
            command += ["--resume"]
        self._xdub(*command, *_set((*SETTINGS, *settings)))
        return training_things(out / phase)

    def _editor(self) -> Path:
        """Return the shipped editor of the tree before, which both sides' experts are trained on."""
        path = self._inputs / "editor.safetensors"
        if not path.is_file():
            (shipped,) = self._tree.rglob("weights_tiny/editor.safetensors")
            shutil.copyfile(shipped, path)
        return path

    def _fresh(self, name: str) -> Path:
        """Return the path of an output, after removing the remains of an interrupted call."""
        path = self.folder / name
        if path.is_dir():
            shutil.rmtree(path)
        path.unlink(missing_ok=True)
        return path

    def _xdub(self, *arguments: Any) -> None:
        """Run a command of the tree. RuntimeError with the end of its output if it fails."""
        words = [str(argument) for argument in arguments]
        path = os.pathsep.join((str(self._tree), str(self._tree / "kernels")))
        completed = subprocess.run(
            [sys.executable, "-c", LAUNCHER, str(self._tree), *words],
            cwd=self.folder,
            env=os.environ | VARIABLES | {"PYTHONPATH": path},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            text=True,
            timeout=SECONDS,
        )
        with (self.folder / "log.txt").open("a", encoding="utf-8") as log:
            log.write(f"$ xdub {' '.join(words)}\n{completed.stdout}\n")
        if completed.returncode:
            raise RuntimeError(
                f"xdub {words[0]} ended with {completed.returncode}: {completed.stdout[-3000:]}"
            )


def export_tree(commit: str, folder: Path) -> None:
    """Write the files of a commit to a new folder."""
    command = ["git", "-C", str(ROOT), "archive", "--format=zip", commit]
    archive = subprocess.run(command, check=True, capture_output=True).stdout
    temporary = folder.with_suffix(".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    with zipfile.ZipFile(io.BytesIO(archive)) as files:
        files.extractall(temporary)
    os.replace(temporary, folder)


def _set(settings: Iterable[str]) -> list[str]:
    return [word for setting in settings for word in ("--set", setting)]
