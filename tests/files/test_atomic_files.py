"""Atomic writes leave the old content or the new content, whatever fails in between."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from xdub.errors import UserError
from xdub.files import atomic
from xdub.files.atomic import atomic_folder, atomic_path, replace_folder, write_json, write_text


def content(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_a_failing_block_keeps_the_old_file_and_leaves_no_other(tmp_path: Path) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), atomic_path(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert content(tmp_path) == {"a.txt": "old"}
    with atomic_path(path) as temporary:
        temporary.write_text("new")
    assert content(tmp_path) == {"a.txt": "new"}


def test_text_and_json_replace_the_file_and_leftovers_of_a_killed_write(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    (tmp_path / ".state.json.tmp").write_text('{"half')
    write_text(path, "ä\n")
    assert path.read_text("utf-8") == "ä\n"
    write_json(path, {"a": [1, 2]})
    assert json.loads(path.read_text()) == {"a": [1, 2]}
    assert [p.name for p in tmp_path.iterdir()] == ["state.json"]


@pytest.mark.parametrize("write", [lambda path: write_text(path, "new"), lambda path: write_json(path, 1)])
def test_a_full_disk_is_a_user_error_and_keeps_the_old_file(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.txt"
    path.write_text("old")

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(atomic.os, "fsync", full)
    with pytest.raises(UserError, match="disk is full"):
        write(path)
    assert path.read_text() == "old"


def test_a_folder_replaces_the_old_one_as_a_whole(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with atomic_folder(tmp_path / "weights") as temporary:
            (temporary / name).write_text(name)
    assert content(tmp_path) == {"weights/b": "b"}


def test_a_failing_block_keeps_the_old_folder(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "weights") as temporary:
        (temporary / "a").write_text("a")
    with pytest.raises(RuntimeError), atomic_folder(tmp_path / "weights") as temporary:
        (temporary / "b").write_text("half")
        raise RuntimeError
    assert content(tmp_path) == {"weights/a": "a"}


def test_leftovers_of_a_killed_write_do_not_reach_the_new_folder(tmp_path: Path) -> None:
    for leftover in (".weights.tmp", ".weights.old"):
        (tmp_path / leftover).mkdir()
        (tmp_path / leftover / "stale").write_text("stale")
    with atomic_folder(tmp_path / "weights") as temporary:
        (temporary / "a").write_text("a")
    assert content(tmp_path) == {"weights/a": "a"}


def test_a_moved_folder_replaces_its_target_and_creates_missing_parents(tmp_path: Path) -> None:
    for text in ("old", "new"):
        source = tmp_path / "fetched"
        source.mkdir()
        (source / text).write_text(text)
        assert replace_folder(source, tmp_path / "deep" / "target") == tmp_path / "deep" / "target"
    assert content(tmp_path) == {"deep/target/new": "new"}
