"""Training on cached latents has the samples, losses and weights of training on pixels, and refuses a stale cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.torch import load_file

from xdub.config import Recipe
from xdub.data.clip import to_row
from xdub.data.latent_cache.folder import CacheFolder, required_caches
from xdub.data.latent_cache.key import latent_key
from xdub.data.samples import SampleMaker, StreamSpec
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.encode import encode_latents
from xdub.encode.worker import UNFINISHED
from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.run_folder import PhaseFolder
from xdub.train.run import RunResult, train_phase

Make = Callable[..., Recipe]
CACHED = "train.latents=cached"
GRID = "train.window_stride=2"
SHORT = "train.steps=2"


def write(folder: Path, *, clips: int = 8, pair: bool = False, broken: tuple[int, ...] = ()) -> Path:
    with ShardWriter(folder, rows_per_shard=4) as writer:
        for seed in range(clips):
            row = to_row(make_clip(seed, num_frames=17, size=32, pair=pair))
            if seed in broken:
                row["frames"] = row["frames"][:200]
            writer.add_row(row)
    return folder


def run(phase: str, recipe: Recipe, data: Path, out: Path, **options) -> RunResult:
    return train_phase(phase, recipe, data, out, local=True, progress=lambda now: None, **options)


def curve(folder: PhaseFolder) -> list[tuple[str, list[str]]]:
    """Return the loss and the samples of every step."""
    return [(record["loss"], record["sample_ids"]) for record in read_lines(folder.steps)]


def test_a_generator_on_cached_latents_has_the_losses_and_weights_of_one_on_pixels_also_after_a_crash(
    small: Make, tmp_path: Path
) -> None:
    data = write(tmp_path / "data")
    live = run("generator", small(GRID, "train.steps=4"), data, tmp_path / "live")
    report = encode_latents(small(GRID), data, phases=["generator"], local=True)
    assert (report.encoded, report.clips, report.windows, report.references) == (2, 8, 8 * 3, 8 * 9)

    def power_cut(model, context):
        raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        crashing = small(GRID, CACHED, "train.steps=4", "train.sample_every=3")
        run("generator", crashing, data, tmp_path / "cached", sampler=power_cut)
    cached = run("generator", small(GRID, CACHED, "train.steps=4"), data, tmp_path / "cached", resume=True)
    assert curve(cached.folder) == curve(live.folder)
    assert live.export is not None and cached.export is not None
    mine, theirs = (load_file(export / "model.safetensors") for export in (cached.export, live.export))
    assert all(mine[name].equal(theirs[name]) for name in theirs)


def test_editor_and_lip_expert_share_a_cache_and_have_the_losses_of_pixels(
    small: Make, tmp_path: Path
) -> None:
    data = write(tmp_path / "pairs", pair=True)
    report = encode_latents(small(GRID), data, local=True)
    assert len(report.folders) == 1, "phases with equal windows share one cache"
    for phase in ("editor", "lip"):
        options = {} if phase == "editor" else {"base": PhaseFolder(tmp_path / "live", "editor").export}
        live = run(phase, small(GRID, SHORT), data, tmp_path / "live", **options)
        cached = run(phase, small(GRID, CACHED, SHORT), data, tmp_path / "cached", **options)
        assert curve(cached.folder) == curve(live.folder), phase


def test_latents_in_bf16_give_the_losses_of_pixels_to_the_rounding_of_bf16(
    small: Make, tmp_path: Path
) -> None:
    data, bf16 = write(tmp_path / "data"), (GRID, "train.precision=bf16", "train.steps=2")
    encode_latents(small(*bf16), data, local=True)
    runs = [
        run("generator", small(*bf16, *more), data, tmp_path / str(len(more))) for more in ((), (CACHED,))
    ]
    live, cached = ([float.fromhex(loss) for loss, _ in curve(result.folder)] for result in runs)
    assert cached != live and np.allclose(cached, live, rtol=4e-3)
    assert latent_key(small(*bf16), "generator").digest != latent_key(small(GRID), "generator").digest


def test_a_run_without_its_cache_stops_before_it_starts_and_names_the_command(
    small: Make, tmp_path: Path
) -> None:
    data, recipe = write(tmp_path / "data"), small(GRID, CACHED)

    def refusal() -> str:
        with pytest.raises(UserError) as error:
            run("generator", recipe, data, tmp_path / "run")
        assert not (tmp_path / "run" / "generator").exists()
        return str(error.value)

    assert f"2 of 2 shards of {data} have no latents" in refusal()
    assert f"run `xdub encode --recipe tiny --data {data}`" in refusal()
    encode_latents(small("train.window_stride=4"), data, local=True)
    assert "those there have another train.window_stride" in refusal()
    encode_latents(recipe, data, local=True)
    (caches,) = required_caches(recipe, "generator", [data])
    # A shard that was written again has other latents.
    with ShardWriter(data, rows_per_shard=4) as writer:
        writer.add(make_clip(99, num_frames=17, size=32))
    assert "1 of 3 shards" in refusal()
    assert encode_latents(recipe, data, local=True).encoded == 1
    first = next(iter(CacheFolder(caches).files().values()))
    (Path(str(caches)) / first.name).write_bytes(b"cut short")
    assert "1 of 3 shards" in refusal()


def test_encoding_again_adds_only_what_is_missing_and_removes_what_a_killed_run_left(
    small: Make, tmp_path: Path
) -> None:
    data, recipe = write(tmp_path / "data"), small(GRID, f"train.latent_cache={tmp_path / 'caches'}")
    encode_latents(recipe, data, local=True)
    folder = tmp_path / "caches" / latent_key(recipe, "generator").digest
    assert json.loads(folder.with_suffix(".json").read_text())["stride"] == 2
    before = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.parquet")}
    victim, kept = sorted(before)
    (folder / victim).unlink()
    (folder / f"{UNFINISHED}1.parquet").write_bytes(b"half")
    assert encode_latents(recipe, data, local=True).encoded == 1
    after = {path.name: path.stat().st_mtime_ns for path in folder.iterdir() if path.suffix == ".parquet"}
    assert after.keys() == before.keys(), "the same shard has the same bytes"
    assert after[kept] == before[kept] and after[victim] != before[victim]
    content = bytearray((folder / kept).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / kept).write_bytes(content)
    assert encode_latents(recipe, data, local=True).encoded == 0
    assert encode_latents(recipe, data, local=True, verify=True).encoded == 1


def test_damaged_clips_and_damaged_files_are_replaced_by_the_same_clips_as_in_training_on_pixels(
    small: Make, tmp_path: Path
) -> None:
    data, recipe = write(tmp_path / "data", broken=(3,)), small(GRID, CACHED)
    report = encode_latents(recipe, data, local=True)
    broken = make_clip(3, num_frames=17, size=32).clip_id
    assert list(report.bad) == [broken] and "damaged row" in report.bad[broken]
    spec = StreamSpec.from_recipe(
        recipe, "generator", data, caches=required_caches(recipe, "generator", [data])
    )
    cached, live = SampleMaker(spec), SampleMaker(spec.of_pixels())
    for position in range(16):
        got, want = cached.sample(position), live.sample(position)
        assert (got["sample_id"], got["start"]) == (want["sample_id"], want["start"])
        assert got["bad"].keys() == want["bad"].keys()
        assert np.array_equal(got["face_mask"], want["face_mask"]) and "frames" not in got
    (caches,) = spec.caches
    path = next(Path(str(caches)).glob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    errors = [
        row.error for position in range(8) for row in SampleMaker(spec).sample(position)["bad"].values()
    ]
    assert any("sha256 differs from its name" in error for error in errors)


def test_a_syncnet_refuses_cached_latents_and_keeps_its_own_setting(small: Make, tmp_path: Path) -> None:
    assert small(CACHED, GRID).for_phase("syncnet").latents == "live"
    with pytest.raises(UserError, match="a SyncNet trains on pixels"):
        run("syncnet", small("syncnet.latents=cached"), write(tmp_path / "data"), tmp_path / "run")
