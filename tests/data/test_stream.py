"""Streams: bit-identical batches in this process and in Ray's actors, from any cursor; only bad rows are replaced."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from xdub.config import load_recipe
from xdub.data.latent_cache.folder import required_caches
from xdub.data.latents import encode_batch
from xdub.data.manifest import read_manifest
from xdub.data.sample_order import RowRef, SampleOrder
from xdub.data.samples import StreamSpec
from xdub.data.shards import ShardWriter
from xdub.data.stream import FIRST_STEPS, BatchActor, LocalStream, RayStream, _Pause, _user_error
from xdub.data.testing import FrameIndexAudio, PatchCodec, make_clip
from xdub.encode import encode_latents
from xdub.errors import UserError


def write(folder: Path, count: int, pair: bool = False, broken: tuple[int, ...] = ()) -> Path:
    from xdub.data.clip import to_row

    with ShardWriter(folder, rows_per_shard=4) as writer:
        for seed in range(count):
            row = to_row(make_clip(seed, num_frames=13, pair=pair))
            if seed in broken:
                row["frames"] = row["frames"][:200]
            writer.add_row(row)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("data") / "clips", 10)


def spec(folder: Path, **fields: Any) -> StreamSpec:
    values = {"data": (str(folder),), "phase": "generator", "window": 9, "seed": 3, "global_batch": 4}
    values |= {"micro_batch": 2, "geometry": PatchCodec.geometry}
    return StreamSpec(**(values | fields))


def assert_equal(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        if isinstance(value, np.ndarray):
            assert np.array_equal(value, right[name]), name
        else:
            assert value == right[name], name
        if isinstance(value, np.ndarray):
            assert value.dtype == right[name].dtype and value.shape == right[name].shape


def test_batches_have_the_documented_shapes(clips: Path) -> None:
    batch = next(iter(LocalStream(spec(clips))))
    shapes = {"frames": (2, 9, 32, 32, 3), "reference": (2, 1, 32, 32, 3), "hidden": (2, 9, 32, 32)}
    shapes["landmarks"] = (2, 9, 68, 2)
    c, f = PatchCodec.geometry.channels, 3
    shapes |= {"starts": (f,), "face_mask": (2, 1, f, 4, 4), "lip_mask": (2, 1, f, 4, 4), "epochs": (2,)}
    for name, shape in shapes.items():
        assert batch[name].shape == shape, name
    assert len(batch["sample_id"]) == 2 and batch["epoch"] == 0 and batch["sound"].shape == (2, 59 * 640)
    encoded = encode_batch(batch, PatchCodec(), FrameIndexAudio(), "cpu")
    for name, shape in {"z0": (2, c, f, 4, 4), "z_mask": (2, c, f, 4, 4), "z_ref": (2, c, 1, 4, 4)}.items():
        assert encoded[name].shape == shape and encoded[name].dtype == torch.float32, name
    assert encoded["audio"].shape == (2, 26, 2)


def test_two_epochs_hold_every_id_twice_with_different_windows(clips: Path) -> None:
    batches = list(LocalStream(spec(clips), steps=5))
    ids = [name for batch in batches for name in batch["sample_id"]]
    assert sorted(ids[:10]) == sorted(ids[10:]) == sorted(read_manifest(clips).ids) and ids[:10] != ids[10:]
    starts = {}
    for batch in batches:
        for key in zip(batch["sample_id"], batch["window_starts"].tolist(), strict=True):
            starts.setdefault(key[0], set()).add(key[1])
    assert any(len(values) == 2 for values in starts.values())


def test_resuming_at_a_cursor_continues_bit_for_bit(clips: Path) -> None:
    whole = list(LocalStream(spec(clips), steps=4))
    stream = LocalStream(spec(clips))
    for number, batch in enumerate(stream):
        assert_equal(batch, whole[number])
        # The stream stops in the middle of the third step, whose first half is repeated.
        if number == 4:
            break
    assert stream.cursor == 8
    again = LocalStream(spec(clips), cursor=stream.cursor, steps=2, cache_bytes=0)
    for got, want in zip(again, whole[4:], strict=True):
        assert_equal(got, want)
    assert again.cursor == 16 and again.wait_seconds > 0


def test_the_ranks_of_any_world_size_read_the_same_samples(clips: Path) -> None:
    def samples(world: int) -> dict[int, tuple[str, np.ndarray]]:
        by_position = {}
        for rank in range(world):
            for batch in LocalStream(spec(clips, rank=rank, world_size=world, micro_batch=1), steps=3):
                by_position[int(batch["positions"][0])] = (batch["sample_id"][0], batch["frames"][0])
        return by_position

    one = samples(1)
    assert sorted(one) == list(range(12))
    for world in (2, 4):
        for position, (name, frames) in samples(world).items():
            assert name == one[position][0] and np.array_equal(frames, one[position][1])


def test_a_bad_row_is_quarantined_and_replaced_by_the_same_row_in_every_stream(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", 10, broken=(3,))
    bad = make_clip(3, num_frames=13).clip_id
    stream = LocalStream(spec(folder), steps=5)
    batches = list(stream)
    assert list(stream.bad) == [bad] and "damaged row" in stream.bad[bad].error
    assert (
        stream.bad[bad].shard == str(folder / read_manifest(folder).shards[0].file)
        and stream.bad[bad].epoch == 0
    )
    assert bad not in [name for batch in batches for name in batch["sample_id"]]
    for got, want in zip(
        LocalStream(spec(folder), steps=3, cursor=8, cache_bytes=0), batches[4:], strict=True
    ):
        assert_equal(got, want)


def test_too_many_bad_rows_end_the_stream(tmp_path: Path) -> None:
    folder = write(tmp_path / "three", 10, broken=(1, 4, 8))
    with pytest.raises(UserError, match="of 10 clips cannot be read"):
        list(LocalStream(spec(folder), steps=3))


def test_editor_phases_need_pairs(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds clips, but phase lip trains on pairs"):
        LocalStream(spec(clips, phase="lip"))
    pairs = write(tmp_path / "pairs", 2, pair=True)
    batch = next(iter(LocalStream(spec(pairs, phase="lip"))))
    assert batch["reference"].shape == batch["frames"].shape and "hidden" not in batch


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


def test_one_flipped_bit_excludes_its_shard_and_the_error_names_the_shard(tmp_path: Path) -> None:
    folder = write(tmp_path / "ds", 40)
    victim = folder / read_manifest(folder).shards[4].file
    flip(victim, victim.stat().st_size // 2)
    lost = set(read_manifest(folder).ids[16:20])
    stream = LocalStream(spec(folder, max_bad=0.2), steps=10)
    names = {name for batch in stream for name in batch["sample_id"]}
    assert set(stream.bad) == lost and not names & lost
    assert {row.shard for row in stream.bad.values()} == {str(victim)}
    assert all(f"{victim.name}: sha256 differs" in row.error for row in stream.bad.values())
    with pytest.raises(UserError, match=f"of 40 clips cannot be read .*{victim.name}: sha256 differs"):
        list(LocalStream(spec(folder), steps=10))


def test_a_user_error_of_an_actor_keeps_its_message() -> None:
    error = _user_error(RuntimeError("Traceback ...\n  line 1\nxdub.errors.UserError: clip 7: damaged row\n"))
    assert isinstance(error, UserError) and str(error) == "clip 7: damaged row"
    other = RuntimeError("out of memory")
    assert _user_error(other) is other


def test_an_actor_that_starts_after_the_data_changed_returns_no_other_clips(tmp_path: Path) -> None:
    described = spec(write(tmp_path, 8))
    digest, rows = described.order().digest, {"position": np.arange(2)}
    assert len(BatchActor(described, 0, digest)(rows)["sample_id"]) == 2
    write(tmp_path, 12)
    with pytest.raises(UserError, match="changed since the training began to read"):
        BatchActor(described, 0, digest)(rows)


def test_a_ray_stream_needs_a_running_ray(clips: Path) -> None:
    with pytest.raises(RuntimeError, match="LocalStream"):
        next(iter(RayStream(spec(clips))))


@pytest.fixture(scope="module")
def running_ray() -> Iterator[None]:
    import ray

    environment = {"OMP_NUM_THREADS": "1", "RAY_DATA_DISABLE_PROGRESS_BARS": "1"}
    ray.init(
        address="local",
        num_cpus=4,
        include_dashboard=False,
        object_store_memory=200_000_000,
        logging_level="ERROR",
        log_to_driver=False,
        runtime_env={"env_vars": environment},
    )
    yield
    ray.shutdown()


@pytest.mark.slow
def test_ray_actors_read_the_local_batches_bit_for_bit(running_ray: None, tmp_path: Path) -> None:
    folder = write(tmp_path / "one", 10, broken=(3,))
    fields = {"rank": 1, "world_size": 2, "micro_batch": 2}
    remote = RayStream(spec(folder, **fields), steps=8, cursor=4, chunk_batches=3)
    local = LocalStream(spec(folder, **fields), steps=8, cursor=4)
    count = 0
    for got, want in zip(remote, local, strict=True):
        assert_equal(got, want)
        # A batch may be changed.
        got["frames"] += 1
        count += 1
    assert count == 8 and remote.cursor == local.cursor == 36
    assert remote.bad == local.bad and len(remote.bad) == 1, "the damaged row is quarantined by both"


@pytest.mark.slow
def test_ray_actors_read_cached_latents_bit_for_bit(running_ray: None, clips: Path, tmp_path: Path) -> None:
    settings = ("video.size=32", "phases.generator.window=9", "train.global_batch=4", "train.micro_batch=2")
    cached = ("train.latents=cached", "train.window_stride=2", f"train.latent_cache={tmp_path}")
    recipe = load_recipe("tiny", [*settings, *cached])
    encode_latents(recipe, clips, phases=["generator"], local=True)
    caches = required_caches(recipe, "generator", [clips])
    described = StreamSpec.from_recipe(recipe, "generator", clips, caches=caches)
    streams = (RayStream(described, steps=6), LocalStream(described, steps=6))
    for got, want in zip(*streams, strict=True):
        assert_equal(got, want)
        assert want["z0"].shape[:3] == (2, 48, 3) and "frames" not in want


@pytest.mark.slow
def test_a_killed_data_actor_changes_no_batch(running_ray: None, clips: Path, tmp_path: Path) -> None:
    marker, test = tmp_path / "killed", os.getpid()

    class Deadly(SampleOrder):
        """Sample order that once kills the actor that reads its ninth sample."""

        def at(self, position: int) -> tuple[int, RowRef]:
            self.calls = getattr(self, "calls", 0) + 1
            if self.calls == 9 and os.getpid() != test and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return super().at(position)

    class DeadlySpec(StreamSpec):
        def order(self, verify: bool = False) -> SampleOrder:
            return Deadly(super().order().manifests, window=self.window, seed=self.seed)

    stream = RayStream(DeadlySpec(**vars(spec(clips))), steps=FIRST_STEPS + 6, actors=(1, 1))
    for got, want in zip(stream, LocalStream(spec(clips), steps=FIRST_STEPS + 4), strict=False):
        assert_equal(got, want)
    assert marker.exists() and stream.cursor == 32, "the loop ends early, like that of a trainer"


@pytest.mark.slow
def test_the_first_batches_are_read_in_this_process_and_the_others_in_actors_without_torch(
    running_ray: None, clips: Path, tmp_path: Path
) -> None:
    class Recording(SampleOrder):
        """Sample order that records the process of each read, and whether that process has imported torch."""

        def at(self, position: int) -> tuple[int, RowRef]:
            (tmp_path / f"{position}").write_text(f"{os.getpid()} {'torch' in sys.modules}")
            return super().at(position)

    class RecordingSpec(StreamSpec):
        def order(self, verify: bool = False) -> SampleOrder:
            return Recording(super().order().manifests, window=self.window, seed=self.seed)

    count = 4 * (FIRST_STEPS + 1)
    assert sum(1 for _ in RayStream(RecordingSpec(**vars(spec(clips))), steps=FIRST_STEPS + 1)) == count // 2
    records = [(tmp_path / f"{position}").read_text().split() for position in range(count)]
    assert {pid for pid, _ in records[:-4]} == {str(os.getpid())}
    assert all(int(pid) != os.getpid() and torch == "False" for pid, torch in records[-4:])


@pytest.mark.slow
def test_closing_a_stream_while_its_actors_start_ends_its_thread(running_ray: None, clips: Path) -> None:
    batches = iter(RayStream(spec(clips), steps=100, actors=(1, 1)))
    next(batches)
    batches.close()
    with pytest.raises(StopIteration):
        next(batches)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("first-remote-batch")]


@pytest.mark.slow
def test_the_scheduler_pauses_while_batches_wait(running_ray: None, clips: Path, monkeypatch) -> None:
    turns = []
    pause = _Pause.on_execution_step
    monkeypatch.setattr(_Pause, "on_execution_step", lambda *own: (turns.append(1), pause(*own)))
    batches = iter(RayStream(spec(clips), steps=20, actors=(1, 1)))
    for _ in range(2 * FIRST_STEPS + 1):
        next(batches)
    before, begin = len(turns), time.monotonic()
    time.sleep(2)
    count = len(turns) - before
    assert 0 < count <= (time.monotonic() - begin) / _Pause.SECONDS + 1
    # Read to the end, because Ray must not stop while threads still fetch.
    assert len(list(batches)) == 39 - 2 * FIRST_STEPS
