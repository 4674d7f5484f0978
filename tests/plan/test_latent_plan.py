"""The plan weighs a cache of latents against encoding in every step, with the bytes that `xdub encode` writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from xdub.config import load_recipe
from xdub.data.latent_cache.entries import EntryFile
from xdub.data.latent_cache.folder import required_caches
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.encode import encode_latents
from xdub.plan.flops import ENCODED, SPEECH
from xdub.plan.gpus import known_gpu
from xdub.plan.latent_plan import window_bytes
from xdub.plan.phase_plan import PhasePlan, plan_phase


def planned(phase: str, *settings: str) -> PhasePlan:
    recipe = load_recipe("xdub-1b", settings)
    return plan_phase(recipe, phase, known_gpu("a100-80gb"), efficiency=0.4)


def test_a_cache_takes_the_encoders_out_of_the_step_and_is_far_cheaper_for_the_generator() -> None:
    live, cached = (
        planned("generator"),
        planned("generator", "train.latents=cached", "train.window_stride=25"),
    )
    assert live.step_flops.keys() - cached.step_flops.keys() == {ENCODED, SPEECH}
    assert live.model_flops == cached.model_flops
    assert cached.step_seconds == pytest.approx(live.step_seconds - live.encoder_seconds)
    assert cached.latents.live_gpu_hours == pytest.approx((live.hours - cached.hours) * live.gpus)
    both = cached.hours * cached.gpus + cached.latents.encode_gpu_hours
    assert 0.55 < both / (live.hours * live.gpus) < 0.62
    assert live.latents.cheaper == cached.latents.cheaper == "cached"
    assert live.latents.cache_bytes == pytest.approx(4.6e12, rel=0.02)
    saved = (live.hours * live.gpus - both) * 1.8 - live.latents.storage_cost
    assert live.latents.saving == pytest.approx(saved)


def test_windows_from_every_frame_are_cheaper_to_encode_in_every_step() -> None:
    latents = planned("generator", "train.latents=cached").latents
    assert (latents.stride, latents.cheaper) == (1, "live") and latents.visits < 1


def test_clips_with_frames_of_another_segment_have_no_reference_for_every_frame(tmp_path: Path) -> None:
    settings = ["train.latents=cached", "train.window_stride=1"]

    def cached(*more: str, data: Sequence[str] = ()) -> float:
        recipe, gpu = load_recipe("tiny", [*settings, *more]), known_gpu("a100-80gb")
        plan = plan_phase(recipe, "generator", gpu, efficiency=0.4, folders=data)
        return plan.latents.cache_bytes - plan.latents.windows * window_bytes(recipe, "generator")[0]

    recorded = {"masks": {"references": 4}}
    for name, recipe in (("prepared", recorded), ("rendered", {})):
        with ShardWriter(tmp_path / name, recipe=recipe) as writer:
            writer.add(make_clip(0, num_frames=77))
    assert cached("masks.references=0") == pytest.approx(cached() * load_recipe("tiny").video.clip_frames / 4)
    prepared, rendered = (cached(data=[str(tmp_path / name)]) for name in ("prepared", "rendered"))
    assert rendered == pytest.approx(prepared * 77 / 4)


def test_phases_with_equal_windows_share_a_cache_which_is_paid_once() -> None:
    editor, lip = planned("editor").latents, planned("lip").latents
    assert editor.shared_by == lip.shared_by == ("editor", "lip", "texture")
    assert editor.saving == lip.saving and editor.shared_live_gpu_hours > editor.live_gpu_hours
    assert planned("lip", "phases.lip.window=25").latents.shared_by == ("lip",)


@pytest.mark.parametrize("phase", ["generator", "editor"])
def test_the_bytes_of_an_entry_are_those_that_are_written(phase: str, tmp_path: Path) -> None:
    recipe = load_recipe("tiny", ["video.size=32", "train.latents=cached", "train.window_stride=10"])
    with ShardWriter(tmp_path / "data") as writer:
        writer.add(make_clip(0, num_frames=35, pair=phase == "editor"))
    report = encode_latents(recipe, tmp_path / "data", phases=[phase], local=True)
    (folder,) = required_caches(recipe, phase, [tmp_path / "data"])
    (name,) = (name for name in folder.sizes() if name.endswith(".parquet"))
    file = EntryFile(folder / name)
    columns = [file.entry(0), file.entry(report.windows)] if report.references else [file.entry(0)]
    # A mask is stored as bits, and read as fp32.
    sizes = [
        sum(a.nbytes / (32 if "mask" in n and n[0] != "z" else 1) for n, a in each.items())
        for each in columns
    ]
    assert window_bytes(recipe, phase) == (sizes[0], sizes[1] if report.references else 0.0)
