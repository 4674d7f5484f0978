"""Restore: an empty machine fetches a phase from its remote copy, and damaged copies are skipped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from remote_side import (
    PHASE,
    content,
    newest,
    number_of_steps,
    phase,
    started_uploads,
    upload_all,
    write_checkpoint,
    write_export,
)

from xdub.files.run_folder import PhaseFolder, RunFolder
from xdub.files.storage import safe_name
from xdub.tracking.journal import LANES, Journal, Shipper, pending_bytes
from xdub.train.remote.restore import restore
from xdub.train.remote.store import CHECKPOINTS, EXPORTS, MANIFEST
from xdub.train.remote.upload import Uploads
from xdub.train.state.checkpoint import damaged_files, read_manifest


def test_an_empty_machine_gets_the_newest_checkpoint_and_its_records(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    upload_all(uri, run, 2, 4)
    other = tmp_path / "elsewhere"
    folder = restore(uri, phase(other))
    assert folder == phase(other).checkpoint(4)
    assert content(folder) == content(phase(run).checkpoint(4))
    assert not damaged_files(folder, read_manifest(folder))
    restored, original = phase(other), phase(run)
    assert restored.steps.read_bytes() == original.steps.read_bytes()
    assert restored.run.state.read_bytes() == original.run.state.read_bytes()
    assert set(restored.path.iterdir()) == {restored.checkpoints, restored.steps}, "no temporary folder stays"


def test_a_finished_phase_is_restored_with_its_export_and_result(uri: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    uploads = started_uploads(uri, run)
    uploads.checkpoint(write_checkpoint(run, 6))
    uploads.export(write_export(run, 6))
    assert uploads.close(20) is None and uploads.uploaded == {CHECKPOINTS: 6, EXPORTS: 6}
    restore(uri, phase(tmp_path / "b"))
    assert content(phase(tmp_path / "b").export) == content(phase(run).export)
    assert json.loads(phase(tmp_path / "b").result.read_text()) == {"step": 6}


def test_an_empty_remote_and_a_remote_that_is_no_further_than_the_local_run_restore_nothing(
    uri: str, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    assert restore(uri, phase(run)) is None and newest(uri) is None
    upload_all(uri, run, 2, 4)
    before = content(run)
    assert restore(uri, phase(run)) is None and content(run) == before


def test_a_local_run_behind_its_remote_is_restored_to_the_newest_step(uri: str, tmp_path: Path) -> None:
    upload_all(uri, tmp_path / "a", 2)
    shutil.copytree(tmp_path / "a", tmp_path / "old")
    upload_all(uri, tmp_path / "a", 8)
    assert restore(uri, phase(tmp_path / "old")).name == "step00000008"
    assert content(tmp_path / "old" / PHASE) == content(tmp_path / "a" / PHASE)


def test_a_run_that_was_rolled_back_replaces_its_later_steps(uri: str, tmp_path: Path) -> None:
    upload_all(uri, tmp_path / "run", 10, 20, 15)
    assert newest(uri).step == 15
    assert restore(uri, phase(tmp_path / "b")).name == "step00000015"
    assert number_of_steps(tmp_path / "b") == 15


def test_a_remote_copy_with_a_wrong_byte_is_skipped(tmp_path: Path, capsys) -> None:
    uri = str(tmp_path / "r")
    upload_all(uri, tmp_path / "run", 2, 4)
    victim = next((tmp_path / "r").rglob("step00000004*/files/engine/rank1.pt"))
    data = bytearray(victim.read_bytes())
    data[7] ^= 1
    victim.write_bytes(data)
    assert restore(uri, phase(tmp_path / "b")).name == "step00000002"
    assert number_of_steps(tmp_path / "b") == 2
    assert "rank1.pt: sha256 differs" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["missing", "short", "no manifest", "torn manifest"])
def test_an_incomplete_remote_folder_is_ignored(damage: str, tmp_path: Path) -> None:
    uri = str(tmp_path / "r")
    upload_all(uri, tmp_path / "run", 2, 4)
    folder = next((tmp_path / "r").rglob("step00000004*"))
    victim = folder / (MANIFEST if "manifest" in damage else "files/engine/rank1.pt")
    victim.write_bytes(victim.read_bytes()[:-20]) if damage in ("short", "torn manifest") else victim.unlink()
    assert newest(uri).step == 2 and restore(uri, phase(tmp_path / "b")).name == "step00000002"


@pytest.mark.parametrize(
    "name", ["../../outside.json", "/etc/outside", "records/../../../outside.json", "..", "files\\..\\x"]
)
def test_a_remote_manifest_cannot_write_outside_the_run(name: str, tmp_path: Path) -> None:
    assert not safe_name(name)
    uri = str(tmp_path / "r")
    upload_all(uri, tmp_path / "run", 2)
    path = next((tmp_path / "r").rglob(f"step00000002*/{MANIFEST}"))
    raw = json.loads(path.read_text())
    raw["files"][name] = next(iter(raw["files"].values()))
    path.write_text(json.dumps(raw))
    assert restore(uri, phase(tmp_path / "b")) is None and not phase(tmp_path / "b").checkpoints.exists()


def test_only_records_of_this_phase_are_restored(tmp_path: Path) -> None:
    uri, run = str(tmp_path / "r"), tmp_path / "run"
    editor = PhaseFolder(run, "editor")
    editor.path.mkdir(parents=True)
    editor.steps.write_text("other")
    (run / "evil.sh").write_text("no")
    uploads = Uploads(uri, phase(run))
    uploads.records = [editor.steps, run / "evil.sh", editor.run.state]
    uploads.start().checkpoint(write_checkpoint(run, 1))
    assert uploads.close(20) is None
    (tmp_path / "b").mkdir()
    state = RunFolder(tmp_path / "b").state
    state.write_text("mine")
    restore(uri, phase(tmp_path / "b"))
    assert {p.name for p in (tmp_path / "b").iterdir()} == {PHASE, state.name}
    assert state.read_text() == "mine", "the local file also holds other phases"


def test_a_restored_journal_is_sent_whole_after_a_longer_journal_was_sent(tmp_path: Path) -> None:
    """The offsets of the local journal do not apply to the restored journal."""
    uri, out, steps = str(tmp_path / "r"), tmp_path / "run", list[int]()
    folder = phase(out)
    folder.path.mkdir(parents=True)

    def append(numbers: range) -> None:
        journal = Journal(folder)
        for number in numbers:
            journal.metrics(number, {"loss": 1.0 / number})
        journal.close()

    def send() -> None:
        for lane in LANES:
            Shipper(folder, lambda records: steps.extend(record["step"] for record in records), lane).flush()

    append(range(1, 11))
    upload_all(uri, out, 10)
    shutil.rmtree(folder.checkpoint(10))
    append(range(11, 21))
    send()
    assert steps == list(range(1, 21)) and len(folder.offsets) == len(LANES)
    assert restore(uri, folder) == folder.checkpoint(10) and not folder.offsets
    append(range(11, 31))
    steps.clear()
    send()
    assert steps == list(range(1, 31)) and pending_bytes(folder) == 0
