"""Search of folders for videos: links are followed once, hidden ones are skipped, and nothing is skipped in silence."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from xdub.config import load_recipe
from xdub.data.ledger import Ledger
from xdub.data.prepare import Preparer, prepare_videos
from xdub.data.video_files import find_videos
from xdub.errors import UserError


def _names(folder: Path, *sources: Path) -> list[str]:
    """Return the paths that `find_videos` lists, relative to a folder."""
    return [os.path.relpath(path, folder) for path in find_videos(sources or [folder])]


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(path.name)


def test_links_to_folders_and_files_are_followed_once(tmp_path: Path) -> None:
    talks, store = tmp_path / "talks", tmp_path / "store"
    _touch(
        talks / "b" / "1.mp4",
        talks / "c.mov",
        store / "2.mp4",
        store / "deep" / "3.MKV",
        tmp_path / "out.mp4",
    )
    links = {
        "a": store,
        "also": store / "deep",
        "again": talks / "b",
        "loop": talks,
        "up": tmp_path,
        "b/loop": talks / "b",
        "0.mp4": talks / "c.mov",
        "d.mp4": store / "2.mp4",
    }
    for name, target in links.items():
        (talks / name).symlink_to(target)
    (store / "back").symlink_to(talks)
    # A file below a link is listed once, by the path with the smallest name of a link.
    assert _names(talks) == ["a/2.mp4", "a/deep/3.MKV", "b/1.mp4", "c.mov"]
    from_link = [os.path.realpath(path) for path in find_videos([talks / "a"])]
    assert sorted(from_link) == sorted(map(os.path.realpath, find_videos([talks])))


def test_hidden_names_are_skipped_unless_they_are_the_source(tmp_path: Path) -> None:
    hidden = tmp_path / "talks" / ".trash"
    _touch(hidden / "old.mp4", tmp_path / "talks" / "._1.mp4", tmp_path / "talks" / "1.MP4")
    _touch(
        tmp_path / "talks" / "$RECYCLE.BIN" / "2.mp4",
        tmp_path / "talks" / "notes.txt",
        tmp_path / "talks" / "take",
    )
    assert _names(tmp_path / "talks") == ["1.MP4"]
    assert _names(hidden) == ["old.mp4"]
    # A file that is named needs no suffix.
    assert len(find_videos([tmp_path / "talks" / "take", hidden / "old.mp4"])) == 2


def test_a_plain_folder_is_listed_in_the_order_of_its_paths(tmp_path: Path) -> None:
    _touch(*(tmp_path / name for name in ("b/2.mp4", "b.mp4", "a/z/1.mp4", "a/1.mp4", "B/1.ts", "b-1/1.MTS")))
    assert find_videos([tmp_path]) == sorted(path for path in tmp_path.rglob("*") if path.is_file())


def test_broken_links_and_folders_that_cannot_be_listed_have_rows_until_they_are_mended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talks, closed = tmp_path / "talks", tmp_path / "talks" / "closed"
    _touch(talks / "text.mp4", closed / "inside.mp4")
    (talks / "gone.mp4").symlink_to(tmp_path / "lost.mp4")
    scandir = os.scandir

    def guarded(path: str | Path = "."):
        if Path(path) == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    recipe = load_recipe("tiny")
    with monkeypatch.context() as patch, pytest.raises(UserError, match="no clip could be created"):
        patch.setattr(os, "scandir", guarded)
        prepare_videos([talks], tmp_path / "out", recipe, workers=1)
    rows = {Path(row.input).name: row for row in Ledger(tmp_path / "out").rows()}
    assert {name: (row.status, row.check) for name, row in rows.items()} == {
        "closed": ("failed", "folder"),
        "gone.mp4": ("failed", "file"),
        "text.mp4": ("rejected", "readable"),
    }
    assert rows["closed"].message == "cannot be read (Permission denied)"
    assert rows["gone.mp4"].message == f"a link to {tmp_path / 'lost.mp4'}, which does not exist"
    _touch(tmp_path / "lost.mp4")
    with pytest.raises(UserError, match="no clip could be created"):
        prepare_videos([talks], tmp_path / "out", recipe, workers=1)
    rows = {Path(row.input).name: row for row in Ledger(tmp_path / "out").rows()}
    assert {name: (row.status, row.check) for name, row in rows.items()} == {
        name: ("rejected", "readable") for name in ("text.mp4", "gone.mp4", "inside.mp4")
    }


def test_a_source_that_cannot_be_read_is_a_user_error_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "gone")
    os.mkfifo(tmp_path / "pipe")
    preparer = Preparer(load_recipe("tiny"))
    for name, words in {
        "link": "a link to .*gone, which does not exist",
        "none": "no such file or folder",
        "pipe": "neither a file nor a folder",
    }.items():
        with pytest.raises(UserError, match=words):
            find_videos([tmp_path / name])
        (row,) = preparer(str(tmp_path / name))
        assert row.status == "failed"
