"""Streams: bit-identical batches here and in Ray's actors, from any cursor; a bad row costs itself alone."""

from __future__ import annotations

import itertools
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from xdub.data.samples import StreamSpec
from xdub.data.shards import ShardWriter, read_manifest
from xdub.data.stream import LocalStream, RayStream, _Pause, _user_error
from xdub.data.testing import FrameIndexAudio, PatchCodec, make_clip
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
    values |= {"micro_batch": 2, "make_codec": PatchCodec, "make_audio_encoder": FrameIndexAudio}
    return StreamSpec(**(values | fields))


def assert_equal(left: dict[str, Any], right: dict[str, Any]) -> None:
    assert left.keys() == right.keys()
    for name, value in left.items():
        same = torch.equal(value, right[name]) if torch.is_tensor(value) else value == right[name]
        assert same, name
        if torch.is_tensor(value):
            assert value.dtype == right[name].dtype and value.shape == right[name].shape


def test_batches_have_the_agreed_shapes(clips: Path) -> None:
    batch = next(iter(LocalStream(spec(clips))))
    c, f = PatchCodec.channels, 3
    shapes = {"z0": (2, c, f, 4, 4), "z_mask": (2, c, f, 4, 4), "z_ref": (2, c, 1, 4, 4), "audio": (2, 26, 2)}
    shapes |= {"starts": (f,), "face_mask": (2, 1, f, 4, 4), "lip_mask": (2, 1, f, 4, 4), "epochs": (2,)}
    for name, shape in shapes.items():
        assert batch[name].shape == shape, name
    assert len(batch["sample_id"]) == 2 and batch["epoch"] == 0


def test_two_epochs_hold_every_id_twice_with_other_windows(clips: Path) -> None:
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
        if number == 4:  # in the middle of the third step: its first half will come again
            break
    assert stream.state()["cursor"] == 8
    again = LocalStream(spec(clips), steps=2, cache_bytes=0)
    again.load_state(stream.state())
    for got, want in zip(again, whole[4:], strict=True):
        assert_equal(got, want)
    assert again.cursor == 16 and again.wait_seconds > 0


def test_the_ranks_of_any_world_size_make_the_same_samples(clips: Path) -> None:
    def samples(world: int) -> dict[int, tuple[str, torch.Tensor]]:
        found = {}
        for rank in range(world):
            for batch in LocalStream(spec(clips, rank=rank, world_size=world, micro_batch=1), steps=3):
                found[int(batch["positions"][0])] = (batch["sample_id"][0], batch["z0"][0])
        return found

    one = samples(1)
    assert sorted(one) == list(range(12))
    for world in (2, 4):
        for position, (name, z0) in samples(world).items():
            assert name == one[position][0] and torch.equal(z0, one[position][1])


def test_the_number_of_threads_changes_no_bit_and_is_left_alone(clips: Path) -> None:
    before, made = torch.get_num_threads(), []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            made.append(next(iter(LocalStream(spec(clips)))))
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert_equal(*made)


def test_a_state_of_other_data_is_refused(clips: Path) -> None:
    state = LocalStream(spec(clips, seed=4)).state()
    with pytest.raises(UserError, match="data, seed or window changed"):
        LocalStream(spec(clips)).load_state(state)


def test_a_bad_row_is_quarantined_and_replaced_alike_everywhere(tmp_path: Path) -> None:
    folder = write(tmp_path / "one", 10, broken=(3,))
    bad = make_clip(3, num_frames=13).clip_id
    stream = LocalStream(spec(folder), steps=5)
    batches = list(stream)
    assert list(stream.bad) == [bad] and "damaged row" in stream.bad[bad]
    assert bad not in [name for batch in batches for name in batch["sample_id"]]
    for got, want in zip(
        LocalStream(spec(folder), steps=3, cursor=8, cache_bytes=0), batches[4:], strict=True
    ):
        assert_equal(got, want)


def test_too_many_bad_rows_end_the_stream(tmp_path: Path) -> None:
    folder = write(tmp_path / "three", 10, broken=(1, 4, 8))
    with pytest.raises(UserError, match="of 10 clips cannot be read"):
        list(LocalStream(spec(folder), steps=3))


def test_editor_phases_want_pairs(clips: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="holds clips, but phase lip trains on pairs"):
        LocalStream(spec(clips, phase="lip"))
    pairs = write(tmp_path / "pairs", 2, pair=True)
    batch = next(iter(LocalStream(spec(pairs, phase="lip"))))
    assert batch["z_ref"].shape == batch["z0"].shape and "z_mask" not in batch


def test_an_error_of_the_codec_reaches_the_consumer(clips: Path) -> None:
    def broken() -> PatchCodec:
        codec = PatchCodec()
        codec.encode = lambda video: 1 / 0
        return codec

    with pytest.raises(UserError, match="ZeroDivisionError"):
        next(iter(LocalStream(spec(clips, make_codec=broken))))


def test_the_words_of_an_actor_survive_the_way_back() -> None:
    told = _user_error(RuntimeError("Traceback ...\n  line 1\nxdub.errors.UserError: clip 7: damaged row\n"))
    assert isinstance(told, UserError) and str(told) == "clip 7: damaged row"
    other = RuntimeError("out of memory")
    assert _user_error(other) is other


def test_ray_must_run_first(clips: Path) -> None:
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
def test_ray_actors_give_the_local_batches_bit_for_bit(running_ray: None, tmp_path: Path) -> None:
    folder = write(tmp_path / "one", 10, broken=(3,))
    fields = {"rank": 1, "world_size": 2, "micro_batch": 2}
    remote = RayStream(spec(folder, **fields), steps=4, cursor=4, chunk_batches=3)
    local = LocalStream(spec(folder, **fields), steps=4, cursor=4)
    count = 0
    for got, want in zip(remote, local, strict=True):
        assert_equal(got, want)
        got["z0"] += 1  # ours to change
        count += 1
    assert count == 4 and remote.state() == local.state() and remote.cursor == 20
    assert remote.bad == local.bad and len(remote.bad) == 1, "the damaged row is quarantined by both"


@pytest.mark.slow
def test_a_data_actor_killed_in_the_middle_changes_nothing(
    running_ray: None, clips: Path, tmp_path: Path
) -> None:
    marker = tmp_path / "killed"

    def dies_once() -> PatchCodec:
        codec, calls = PatchCodec(), itertools.count()
        encode = codec.encode

        def encode_or_die(video: torch.Tensor) -> torch.Tensor:
            if next(calls) == 8 and not marker.exists():
                marker.touch()
                os.kill(os.getpid(), signal.SIGKILL)
            return encode(video)

        codec.encode = encode_or_die
        return codec

    stream = RayStream(spec(clips, make_codec=dies_once), steps=6, actors=(1, 1))
    for got, want in zip(stream, LocalStream(spec(clips), steps=4), strict=False):
        assert_equal(got, want)
    assert marker.exists() and stream.cursor == 16, "left early, as a trainer does"


@pytest.mark.slow
def test_the_scheduler_rests_while_its_batches_wait(running_ray: None, clips: Path, monkeypatch) -> None:
    turns = []
    rest = _Pause.on_execution_step
    monkeypatch.setattr(_Pause, "on_execution_step", lambda *own: (turns.append(1), rest(*own)))
    batches = iter(RayStream(spec(clips), steps=20, actors=(1, 1)))
    next(batches)
    before, begin = len(turns), time.monotonic()
    time.sleep(2)
    made = len(turns) - before
    assert 0 < made <= (time.monotonic() - begin) / _Pause.SECONDS + 1
    assert len(list(batches)) == 39  # to the end: Ray must not stop under threads that still fetch
