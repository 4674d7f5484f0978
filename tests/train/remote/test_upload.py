"""Uploads: whole or not there, never in the way of a step, and back again on a machine that has nothing."""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest
from fsspec.implementations.local import LocalFileSystem
from hypothesis import given, settings
from hypothesis import strategies as st

from xdub.errors import UserError
from xdub.train.remote import upload
from xdub.train.remote.restore import newest, restore
from xdub.train.remote.store import CHECKPOINTS, EXPORTS, MANIFEST, Remote, check, safe_name, shown
from xdub.train.remote.upload import Uploads
from xdub.train.state.checkpoint import damaged_files, read_manifest

PHASE = "generator"


class Flaky(LocalFileSystem):
    """A disk on which `hook(operation, path)` may raise or wait before anything is written or removed."""

    protocol = "flaky"
    cachable = False
    hook = staticmethod(lambda operation, path: None)

    def _open(self, path, mode="rb", **more):
        if "w" in mode:
            Flaky.hook("write", path)
        return super()._open(path, mode, **more)

    def rm(self, path, recursive=False, maxdepth=None):
        Flaky.hook("remove", path)
        return super().rm(path, recursive, maxdepth)

    def rm_file(self, path):
        Flaky.hook("remove", path)
        return super().rm_file(path)


fsspec.register_implementation("flaky", Flaky, clobber=True)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(upload, "RETRY_SECONDS", (0.01,))
    yield
    Flaky.hook = staticmethod(lambda operation, path: None)


@pytest.fixture(params=["plain", "file", "memory", "flaky"])
def uri(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    place = tmp_path / "remote side"
    return {
        "plain": str(place),
        "file": place.as_uri(),
        "memory": f"memory://{tmp_path.name}",
        "flaky": f"flaky://{place}",
    }[request.param]


def write_checkpoint(run: Path, step: int, salt: str = "", ranks: int = 2) -> Path:
    """RUN/generator/checkpoints/step..., and records of that many steps."""
    folder = run / PHASE / "checkpoints" / f"step{step:08d}"
    shutil.rmtree(folder, ignore_errors=True)
    files = {}
    for rank in range(ranks):
        path = folder / f"engine/rank{rank}.pt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(f"{step}{salt}".encode() * 1000 * (rank + 1))
        what = {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
        files[f"engine/rank{rank}.pt"] = what
    (folder / MANIFEST).write_text(json.dumps({"step": step, "files": files}))
    write_records(run, step)
    return folder


def write_records(run: Path, step: int) -> None:
    lines = "".join(json.dumps({"step": n + 1}) + "\n" for n in range(step))
    (run / PHASE / "steps.jsonl").write_text(lines)
    (run / "run_state.json").write_text('{"parent": "r"}')


def write_export(run: Path, step: int) -> Path:
    folder = run / PHASE / "export"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"weights" * step)
    (folder / "config.json").write_text(json.dumps({"step": step}))
    (run / PHASE / "result.json").write_text(json.dumps({"step": step}))
    return folder


def uploads(uri: str, run: Path, **more) -> Uploads:
    made = Uploads(uri, PHASE, **more)
    names = ("steps.jsonl", "result.json", "quarantine.jsonl")
    made.records([run / "run_state.json", *(run / PHASE / name for name in names)])
    return made.start()


def upload_all(uri: str, run: Path, *steps: int, **more) -> None:
    for step in steps:
        sending = uploads(uri, run, **more)
        sending.checkpoint(write_checkpoint(run, step))
        assert sending.close(20) is None


def wait_until(condition, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "timed out"
        time.sleep(0.005)


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_machine_with_nothing_gets_the_newest_checkpoint_and_its_records(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    upload_all(uri, run, 2, 4)
    other = tmp_path / "elsewhere"
    folder = restore(uri, other / PHASE)
    assert folder == other / PHASE / "checkpoints/step00000004"
    assert content(folder) == content(run / PHASE / "checkpoints/step00000004")
    assert not damaged_files(folder, read_manifest(folder))
    for name in ("run_state.json", f"{PHASE}/steps.jsonl"):
        assert (other / name).read_bytes() == (run / name).read_bytes()
    assert sorted(p.name for p in (other / PHASE).iterdir()) == ["checkpoints", "steps.jsonl"], (
        "nothing is left"
    )


def test_a_finished_phase_comes_back_with_its_export_and_result(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    sending = uploads(uri, run)
    sending.checkpoint(write_checkpoint(run, 6))
    sending.export(write_export(run, 6))
    assert sending.close(20) is None and sending.uploaded == {CHECKPOINTS: 6, EXPORTS: 6}
    restore(uri, tmp_path / "b" / PHASE)
    assert content(tmp_path / "b" / PHASE / "export") == content(run / PHASE / "export")
    assert json.loads((tmp_path / "b" / PHASE / "result.json").read_text()) == {"step": 6}


def test_nothing_comes_back_where_nothing_is_or_the_local_run_is_as_far(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert restore(uri, run / PHASE) is None and newest(uri, PHASE) is None
    upload_all(uri, run, 2, 4)
    before = content(run)
    assert restore(uri, run / PHASE) is None and content(run) == before


def test_a_local_run_that_was_left_behind_catches_up(uri: str, tmp_path: Path) -> None:
    upload_all(uri, tmp_path / "a", 2)
    shutil.copytree(tmp_path / "a", tmp_path / "old")
    upload_all(uri, tmp_path / "a", 8)
    assert restore(uri, tmp_path / "old" / PHASE).name == "step00000008"
    assert content(tmp_path / "old" / PHASE) == content(tmp_path / "a" / PHASE)


def test_the_other_side_keeps_as_many_as_asked_and_the_newest_among_them(uri: str, tmp_path: Path) -> None:
    upload_all(uri, tmp_path / "run", 1, 2, 3, 4, 5, keep=2)
    assert [copy.step for copy in Remote(uri, PHASE).copies(CHECKPOINTS)] == [5, 4]
    assert len(Remote(uri, PHASE).folders(CHECKPOINTS)) == 2


def test_a_run_that_went_back_is_believed(uri: str, tmp_path: Path) -> None:
    upload_all(uri, tmp_path / "run", 10, 20, 15)
    assert newest(uri, PHASE).step == 15
    assert restore(uri, tmp_path / "b" / PHASE).name == "step00000015"
    assert len((tmp_path / "b" / PHASE / "steps.jsonl").read_text().splitlines()) == 15


def test_the_same_checkpoint_is_not_sent_again(tmp_path: Path) -> None:
    uri, run, written = f"flaky://{tmp_path}/r", tmp_path / "run", []
    upload_all(uri, run, 2)
    Flaky.hook = staticmethod(lambda operation, path: written.append(path))
    sending = uploads(uri, run)
    sending.checkpoint(run / PHASE / "checkpoints/step00000002")
    assert sending.close(20) is None and not written


@settings(max_examples=12, deadline=None)
@given(fatal=st.integers(0, 12), steps=st.lists(st.integers(1, 30), min_size=1, max_size=3, unique=True))
def test_cut_off_after_any_operation_a_half_folder_is_never_newest(fatal: int, steps: list[int]) -> None:
    """The other side stops answering for good after some number of writes and removals, as when the sender dies."""
    import tempfile

    with tempfile.TemporaryDirectory() as name:
        uri, run = f"flaky://{name}/r", Path(name) / "run"
        upload_all(uri, run, 40)
        done = []

        def hook(operation: str, path: str) -> None:
            if len(done) >= fatal:
                raise SystemExit  # ends the thread
            done.append(path)

        Flaky.hook = staticmethod(hook)
        sending = uploads(uri, run, keep=1)
        threading.excepthook, kept = lambda told: None, threading.excepthook
        for step in steps:
            sending.checkpoint(write_checkpoint(run, step, salt="other"))
            wait_until(lambda: sending.lag == 0 or not sending._thread.is_alive())
        Flaky.hook = staticmethod(lambda operation, path: None)
        threading.excepthook = kept
        folder = restore(uri, Path(name) / "b" / PHASE)
        assert folder is not None and not damaged_files(folder, read_manifest(folder))
        step = int(folder.name[4:])
        assert step in (40, *steps)
        assert len((Path(name) / "b" / PHASE / "steps.jsonl").read_text().splitlines()) >= step
        # Whoever goes on clears up what was left half.
        upload_all(uri, run, 50, keep=1)
        assert len(Remote(uri, PHASE).folders(CHECKPOINTS)) == 1


def test_a_side_that_fails_for_a_while_gets_everything_in_the_end(tmp_path: Path) -> None:
    uri, run, tries = f"flaky://{tmp_path}/r", tmp_path / "run", []

    def hook(operation: str, path: str) -> None:
        tries.append(path)
        if len(tries) % 3:
            raise ConnectionError("reset by peer")

    Flaky.hook = staticmethod(hook)
    sending = uploads(uri, run)
    sending.checkpoint(write_checkpoint(run, 2))
    wait_until(lambda: sending.last_error is not None or sending.uploaded[CHECKPOINTS] == 2)
    wait_until(lambda: sending.uploaded[CHECKPOINTS] == 2)
    assert sending.close(20) is None and sending.last_error is None and newest(uri, PHASE).step == 2


def test_a_side_that_hangs_costs_the_loop_nothing_and_the_end_its_deadline(tmp_path: Path) -> None:
    uri, run, hanging, go = f"flaky://{tmp_path}/r", tmp_path / "run", threading.Event(), threading.Event()
    upload_all(uri, run, 1)

    def hook(operation: str, path: str) -> None:
        hanging.set()
        go.wait(30)

    Flaky.hook = staticmethod(hook)
    sending = uploads(uri, run)
    folders = [write_checkpoint(run, step) for step in range(2, 40)]
    begin = time.monotonic()
    for folder in folders:
        sending.checkpoint(folder)
        hanging.wait(10)
    assert time.monotonic() - begin < 5
    assert sending.lag > 0 and sending.dropped == 36, "one is under way, the newest waits"
    begin = time.monotonic()
    told = sending.close(0.3)
    assert time.monotonic() - begin < 2
    assert told is not None and "checkpoints of generator" in told and "0 s" in told
    assert newest(uri, PHASE).step == 1
    go.set()


def test_behind_by_many_it_takes_the_newest_and_drops_the_rest(tmp_path: Path) -> None:
    uri, run, go = f"flaky://{tmp_path}/r", tmp_path / "run", threading.Event()
    Flaky.hook = staticmethod(lambda operation, path: go.wait(30))
    sending = uploads(uri, run, keep=9)
    for step in (1, 2, 3, 4):
        sending.checkpoint(write_checkpoint(run, step))
        wait_until(lambda: sending._current is not None)
    go.set()
    assert sending.close(20) is None
    assert [copy.step for copy in Remote(uri, PHASE).copies(CHECKPOINTS)] == [4, 1]


def test_local_retention_cannot_take_a_folder_away_under_way(tmp_path: Path) -> None:
    uri, run, go = f"flaky://{tmp_path}/r", tmp_path / "run", threading.Event()
    Flaky.hook = staticmethod(lambda operation, path: go.wait(30))
    sending = uploads(uri, run)
    folder = write_checkpoint(run, 3)
    before = content(folder)
    sending.checkpoint(folder)
    wait_until(lambda: (folder.parent / f".uploading-{folder.name}/engine/rank1.pt").exists())
    wait_until(lambda: sending._remote is not None)
    time.sleep(0.05)
    shutil.rmtree(folder)
    go.set()
    assert sending.close(20) is None
    assert content(restore(uri, tmp_path / "b" / PHASE)) == before
    assert not list(folder.parent.glob(".uploading-*")), "the second names are gone"


def test_a_damaged_local_checkpoint_is_not_uploaded_and_it_is_said(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    upload_all(uri, run, 1)
    folder = write_checkpoint(run, 2)
    (folder / "engine/rank0.pt").write_bytes(b"x" * (folder / "engine/rank0.pt").stat().st_size)
    sending = uploads(uri, run)
    sending.checkpoint(folder)
    assert "rank0.pt: differs from its manifest" in sending.close(20)
    assert newest(uri, PHASE).step == 1


def test_a_remote_copy_with_a_wrong_byte_is_passed_over(tmp_path: Path, capsys) -> None:
    uri = str(tmp_path / "r")
    upload_all(uri, tmp_path / "run", 2, 4)
    victim = next((tmp_path / "r").rglob("step00000004*/files/engine/rank1.pt"))
    data = bytearray(victim.read_bytes())
    data[7] ^= 1
    victim.write_bytes(data)
    assert restore(uri, tmp_path / "b" / PHASE).name == "step00000002"
    assert len((tmp_path / "b" / PHASE / "steps.jsonl").read_text().splitlines()) == 2
    assert "rank1.pt: sha256 differs" in capsys.readouterr().err


@pytest.mark.parametrize("how", ["missing", "short", "no manifest", "torn manifest"])
def test_a_half_remote_folder_is_passed_over(how: str, tmp_path: Path) -> None:
    uri = str(tmp_path / "r")
    upload_all(uri, tmp_path / "run", 2, 4)
    folder = next((tmp_path / "r").rglob("step00000004*"))
    victim = folder / (MANIFEST if "manifest" in how else "files/engine/rank1.pt")
    victim.write_bytes(victim.read_bytes()[:-20]) if how in ("short", "torn manifest") else victim.unlink()
    assert newest(uri, PHASE).step == 2 and restore(uri, tmp_path / "b" / PHASE).name == "step00000002"


@pytest.mark.parametrize(
    "name", ["../../outside.json", "/etc/outside", "records/../../../outside.json", "..", "files\\..\\x"]
)
def test_a_remote_manifest_cannot_write_elsewhere(name: str, tmp_path: Path) -> None:
    assert not safe_name(name)
    uri = str(tmp_path / "r")
    upload_all(uri, tmp_path / "run", 2)
    path = next((tmp_path / "r").rglob(f"step00000002*/{MANIFEST}"))
    raw = json.loads(path.read_text())
    raw["files"][name] = next(iter(raw["files"].values()))
    path.write_text(json.dumps(raw))
    assert (
        restore(uri, tmp_path / "b" / PHASE) is None and not (tmp_path / "b" / PHASE / "checkpoints").exists()
    )


def test_only_records_of_this_phase_are_put_in_place(tmp_path: Path) -> None:
    uri, run = str(tmp_path / "r"), tmp_path / "run"
    (run / "editor").mkdir(parents=True)
    (run / "editor/steps.jsonl").write_text("other")
    (run / "evil.sh").write_text("no")
    sending = Uploads(uri, PHASE)
    sending.records([run / "editor/steps.jsonl", run / "evil.sh", run / "run_state.json"])
    sending.start().checkpoint(write_checkpoint(run, 1))
    assert sending.close(20) is None
    (tmp_path / "b").mkdir()
    (tmp_path / "b/run_state.json").write_text("mine")
    restore(uri, tmp_path / "b" / PHASE)
    assert {p.name for p in (tmp_path / "b").iterdir()} == {PHASE, "run_state.json"}
    assert (tmp_path / "b/run_state.json").read_text() == "mine", "it tells of other phases, too"


def test_a_place_that_can_be_written_passes_and_stays_empty(tmp_path: Path) -> None:
    check(str(tmp_path / "r"), PHASE, fresh=True)
    check((tmp_path / "r").as_uri(), PHASE, fresh=True)
    assert not content(tmp_path / "r")


def test_another_run_cannot_push_out_the_copies_of_one(tmp_path: Path) -> None:
    uri = str(tmp_path / "r")
    upload_all(uri, tmp_path / "run", 1)
    check(uri, PHASE)
    check(uri, "editor", fresh=True)
    with pytest.raises(UserError, match="already holds checkpoints of generator: add --resume"):
        check(uri, PHASE, fresh=True)


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("s4://bucket/run", "s4://bucket/run: .*Protocol not known: s4"),
        ("sftp://x/y", "sftp://x/y: .*(paramiko|unknown)"),
        ("/proc/nothing/here", "/proc/nothing/here: cannot be written"),
        ("hdfs://127.0.0.1:9/x", "hdfs://127.0.0.1:9/x: cannot be written"),
    ],
)
def test_a_place_that_cannot_be_used_is_one_line(uri: str, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        check(uri)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("place", ["s3://key:secret@bucket/run?region=x&", "gs://anonymous@bucket/run?"])
def test_a_server_that_never_answers_is_one_line_within_the_deadline(place: str) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen(1)
        begin = time.monotonic()
        with pytest.raises(UserError, match=r"//\.\.\.@bucket/run.*no answer within 2 s$") as caught:
            check(f"{place}endpoint_override=127.0.0.1:{silent.getsockname()[1]}&scheme=http", seconds=2)
    assert time.monotonic() - begin < 10 and "secret" not in str(caught.value)


def test_credentials_in_a_uri_are_not_shown() -> None:
    assert shown("s3://key:secret@bucket/x") == "s3://...@bucket/x"
