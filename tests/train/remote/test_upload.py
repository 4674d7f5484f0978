"""Uploads: a remote has only whole copies, and never delays a step."""

from __future__ import annotations

import shutil
import tempfile
import threading
import time
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from remote_side import (
    PHASE,
    Flaky,
    content,
    newest,
    number_of_steps,
    phase,
    started_uploads,
    upload_all,
    wait_until,
    write_checkpoint,
)

from xdub.train.remote.restore import restore
from xdub.train.remote.store import CHECKPOINTS, Remote
from xdub.train.state.checkpoint import damaged_files, read_manifest


def test_the_remote_keeps_as_many_of_the_newest_copies_as_configured(uri: str, tmp_path: Path) -> None:
    upload_all(uri, tmp_path / "run", 1, 2, 3, 4, 5, keep=2)
    assert [copy.step for copy in Remote(uri, PHASE).copies(CHECKPOINTS)] == [5, 4]
    assert len(Remote(uri, PHASE).folders(CHECKPOINTS)) == 2


def test_the_same_checkpoint_is_not_sent_again(tmp_path: Path) -> None:
    uri, run, written = f"flaky://{tmp_path}/r", tmp_path / "run", []
    upload_all(uri, run, 2)
    Flaky.hook = staticmethod(lambda operation, path: written.append(path))
    uploads = started_uploads(uri, run)
    uploads.checkpoint(phase(run).checkpoint(2))
    assert uploads.close(20) is None and not written


@settings(max_examples=12, deadline=None)
@given(fatal=st.integers(0, 12), steps=st.lists(st.integers(1, 30), min_size=1, max_size=3, unique=True))
def test_an_upload_that_ends_after_any_operation_leaves_a_whole_folder_as_the_newest(
    fatal: int, steps: list[int]
) -> None:
    """The remote stops answering after ``fatal`` writes and removals, as when the sender dies."""

    with tempfile.TemporaryDirectory() as name:
        uri, run = f"flaky://{name}/r", Path(name) / "run"
        upload_all(uri, run, 40)
        done = []

        def hook(operation: str, path: str) -> None:
            if len(done) >= fatal:
                raise SystemExit  # ends the thread
            done.append(path)

        Flaky.hook = staticmethod(hook)
        uploads = started_uploads(uri, run, keep=1)
        threading.excepthook, original_hook = lambda message: None, threading.excepthook
        for step in steps:
            uploads.checkpoint(write_checkpoint(run, step, salt="other"))
            wait_until(lambda: uploads.lag == 0 or not uploads._thread.is_alive())
        Flaky.hook = staticmethod(lambda operation, path: None)
        threading.excepthook = original_hook
        folder = restore(uri, phase(Path(name) / "b"))
        assert folder is not None and not damaged_files(folder, read_manifest(folder))
        step = int(folder.name[4:])
        assert step in (40, *steps)
        assert number_of_steps(Path(name) / "b") >= step
        # The next upload removes unfinished folders.
        upload_all(uri, run, 50, keep=1)
        assert len(Remote(uri, PHASE).folders(CHECKPOINTS)) == 1


def test_a_remote_that_fails_for_a_while_finally_has_every_file(tmp_path: Path) -> None:
    uri, run, tries = f"flaky://{tmp_path}/r", tmp_path / "run", []

    def hook(operation: str, path: str) -> None:
        tries.append(path)
        if len(tries) % 3:
            raise ConnectionError("reset by peer")

    Flaky.hook = staticmethod(hook)
    uploads = started_uploads(uri, run)
    uploads.checkpoint(write_checkpoint(run, 2))
    wait_until(lambda: uploads.last_error is not None or uploads.uploaded[CHECKPOINTS] == 2)
    wait_until(lambda: uploads.uploaded[CHECKPOINTS] == 2)
    assert uploads.close(20) is None and uploads.last_error is None and newest(uri).step == 2


def test_a_remote_that_hangs_delays_no_step_and_delays_the_end_by_its_deadline_at_most(
    tmp_path: Path,
) -> None:
    uri, run, hanging, go = f"flaky://{tmp_path}/r", tmp_path / "run", threading.Event(), threading.Event()
    upload_all(uri, run, 1)

    def hook(operation: str, path: str) -> None:
        hanging.set()
        go.wait(30)

    Flaky.hook = staticmethod(hook)
    uploads = started_uploads(uri, run)
    folders = [write_checkpoint(run, step) for step in range(2, 40)]
    begin = time.monotonic()
    for folder in folders:
        uploads.checkpoint(folder)
        hanging.wait(10)
    assert time.monotonic() - begin < 5
    assert uploads.lag > 0 and uploads.dropped == 36, "one upload is running and the newest folder waits"
    begin = time.monotonic()
    message = uploads.close(0.3)
    assert time.monotonic() - begin < 2
    assert message is not None and "checkpoints of generator" in message and "0 s" in message
    assert newest(uri).step == 1
    go.set()


def test_an_upload_behind_by_many_folders_sends_the_newest_and_drops_the_others(tmp_path: Path) -> None:
    uri, run, go = f"flaky://{tmp_path}/r", tmp_path / "run", threading.Event()
    Flaky.hook = staticmethod(lambda operation, path: go.wait(30))
    uploads = started_uploads(uri, run, keep=9)
    for step in (1, 2, 3, 4):
        uploads.checkpoint(write_checkpoint(run, step))
        wait_until(lambda: uploads._current is not None)
    go.set()
    assert uploads.close(20) is None
    assert [copy.step for copy in Remote(uri, PHASE).copies(CHECKPOINTS)] == [4, 1]


def test_local_retention_cannot_remove_a_folder_while_it_is_sent(tmp_path: Path) -> None:
    uri, run, go = f"flaky://{tmp_path}/r", tmp_path / "run", threading.Event()
    Flaky.hook = staticmethod(lambda operation, path: go.wait(30))
    uploads = started_uploads(uri, run)
    folder = write_checkpoint(run, 3)
    before = content(folder)
    uploads.checkpoint(folder)
    wait_until(lambda: (folder.parent / f".uploading-{folder.name}/engine/rank1.pt").exists())
    wait_until(lambda: uploads._remote is not None)
    time.sleep(0.05)
    shutil.rmtree(folder)
    go.set()
    assert uploads.close(20) is None
    assert content(restore(uri, phase(tmp_path / "b"))) == before
    assert not list(folder.parent.glob(".uploading-*")), "the second names are gone"


def test_a_damaged_local_checkpoint_is_reported_and_not_uploaded(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    upload_all(uri, run, 1)
    folder = write_checkpoint(run, 2)
    (folder / "engine/rank0.pt").write_bytes(b"x" * (folder / "engine/rank0.pt").stat().st_size)
    uploads = started_uploads(uri, run)
    uploads.checkpoint(folder)
    assert "rank0.pt: differs from its manifest" in uploads.close(20)
    assert newest(uri).step == 1
