"""Tests of the data set of rendered clips: complete, resumable, and the same at any number of workers."""

from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest

from xdub.config import load_recipe
from xdub.data.ledger import Ledger
from xdub.data.manifest import read_manifest
from xdub.data.shards import iter_clips
from xdub.errors import UserError
from xdub.render.clips import FIRST_HELD_OUT
from xdub.render.dataset import render_dataset


@pytest.fixture(scope="module")
def recipe():
    return load_recipe("tiny", ["video.size=48", "video.clip_frames=25"])


def _render(recipe, out, **more):
    return render_dataset(recipe, out, **{"clips": 3, "seed": 5, "workers": 1, "full_size": 80, **more})


@pytest.fixture(scope="module")
def dataset(recipe, tmp_path_factory):
    out = tmp_path_factory.mktemp("heads")
    calls = []
    report = _render(recipe, out, on_progress=lambda done, total=None, text="": calls.append((done, total)))
    return out, report, calls


def test_every_clip_has_a_twin_a_truth_file_and_a_ledger_row(dataset):
    out, report, calls = dataset
    clips = list(iter_clips(out))
    assert report.rendered == 3 and report.kept == len(clips) == 6
    assert calls[0] == (0, 3) and calls[-1] == (3, 3)
    firsts = {clip.clip_id for clip in clips if clip.twin_of is None}
    assert {clip.twin_of for clip in clips if clip.twin_of} == firsts and len(firsts) == 3
    for clip in clips:
        with np.load(out / "truth" / f"{clip.clip_id}.npz") as truth:
            assert truth["curves"].shape == (25, len(truth["curve_names"]))
            assert truth["boxes"].shape == (25, 3) and "jawOpen" in truth["curve_names"]
    assert Ledger(out).counts()["kept"] == 6


def test_a_second_call_renders_only_the_clips_that_are_missing(dataset, recipe):
    out, _, _ = dataset
    before = read_manifest(out).ids
    assert _render(recipe, out).rendered == 0
    assert read_manifest(out).ids == before
    assert _render(recipe, out, clips=4).rendered == 1
    assert read_manifest(out).ids[:6] == before


def test_an_interrupted_run_resumes_and_ends_with_the_same_shards_as_a_whole_run(
    recipe, tmp_path, dataset, monkeypatch
):
    monkeypatch.setattr("xdub.render.dataset.BLOCK", 2)

    class Stop(Exception):
        pass

    def stop(done: float, total: float | None = None, text: str = "") -> None:
        if done == 2:
            raise Stop

    with pytest.raises(Stop):
        _render(recipe, tmp_path, on_progress=stop)
    _render(recipe, tmp_path)
    assert set(read_manifest(tmp_path).ids) == set(read_manifest(dataset[0]).ids[:6])


def test_two_workers_write_the_same_shards_as_one(recipe, tmp_path, dataset, monkeypatch):
    monkeypatch.setattr("xdub.render.dataset.BLOCK", 1)
    for workers in (1, 2):
        _render(recipe, tmp_path / str(workers), workers=workers, clips=2)
    one, two = (read_manifest(tmp_path / name, verify=True) for name in ("1", "2"))
    assert list(one.shards) == list(two.shards) and len(one.shards) == 2
    assert list(one.ids) == list(read_manifest(dataset[0]).ids[:4])


def test_a_folder_of_other_settings_is_a_user_error(dataset, recipe):
    with pytest.raises(UserError, match="another recipe"):
        _render(recipe, dataset[0], seed=6)


def test_a_training_set_cannot_hold_held_out_clips(recipe, tmp_path):
    with pytest.raises(UserError, match=str(FIRST_HELD_OUT)):
        _render(recipe, tmp_path, first=FIRST_HELD_OUT - 1)
    with pytest.raises(UserError, match="clips is 0"):
        _render(recipe, tmp_path, clips=0)


def test_without_egl_the_message_names_the_system_packages():
    code = (
        "import moderngl\n"
        "def broken(**k): raise Exception('libEGL.so not loaded')\n"
        "moderngl.create_context = broken\n"
        "from xdub.render.gl import open_context\n"
        "try: open_context()\n"
        "except ValueError as e: print(type(e).__name__, e)\n"
    )
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "UserError" in process.stdout and "libegl1 libgl1-mesa-dri" in process.stdout


def test_importing_the_package_loads_neither_opengl_nor_the_avatar():
    code = "import sys, xdub.render.clips; print('moderngl' in sys.modules, 'anny' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert process.stdout.split() == ["False", "False"]


def test_truth_files_load_without_pickle(dataset):
    data = next((dataset[0] / "truth").glob("*.npz")).read_bytes()
    with np.load(io.BytesIO(data), allow_pickle=False) as truth:
        assert truth["phones"].dtype.kind == "U"


def test_heads_are_rendered_in_the_crop_of_the_published_editors(recipe, tmp_path, dataset):
    wide = load_recipe("tiny", ["video.size=48", "video.clip_frames=25", "video.crop=landmark_box"])
    _render(wide, tmp_path, clips=1)
    first, second = (next(iter_clips(folder)) for folder in (tmp_path, dataset[0]))
    boxes = []
    for folder, clip in ((tmp_path, first), (dataset[0], second)):
        with np.load(folder / "truth" / f"{clip.clip_id}.npz") as truth:
            boxes.append(truth["boxes"])
    assert (boxes[0][:, 2] > boxes[1][:, 2]).all() and (boxes[0][:, 2] <= 80).all()
    with pytest.raises(UserError, match="created with another recipe"):
        _render(recipe, tmp_path, clips=1)
