"""Atomic writes leave the old content or the new content, whatever fails in between."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from xdub.errors import UserError
from xdub.files import atomic
from xdub.files.atomic import atomic_folder, atomic_path, check_output, replace_folder, write_json, write_text


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


@pytest.fixture
def without_chmod(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make every change of permissions and times fail, as on CIFS, and every wait for the disk and link, as on FUSE."""

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    for name in ("chmod", "fchmod", "utime", "link"):
        monkeypatch.setattr(os, name, refuse)

    def unsupported(handle: int) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", unsupported)


def test_a_file_system_without_chmod_fsync_and_links_gets_every_file(
    tmp_path: Path, without_chmod: None
) -> None:
    with atomic_path(tmp_path / "a.mp4") as temporary:
        temporary.write_text("a")
    write_text(tmp_path / "b.json", "b")
    with atomic_folder(tmp_path / "weights") as temporary:
        (temporary / "c").write_text("c")
    assert content(tmp_path) == {"a.mp4": "a", "b.json": "b", "weights/c": "c"}


def test_a_new_file_has_the_permissions_of_the_users_other_files(tmp_path: Path) -> None:
    mask = os.umask(0o027)
    try:
        with atomic_path(tmp_path / "a") as temporary:
            temporary.write_text("a")
    finally:
        os.umask(mask)
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("kind", ["file", "text", "folder"])
def test_a_finished_result_remains_where_the_rename_fails_and_the_error_names_it(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    monkeypatch.setattr(atomic.os, "replace", refuse)
    with pytest.raises(UserError, match="is complete, but cannot be renamed to out") as caught:
        if kind == "file":
            with atomic_path(tmp_path / "out.mp4") as temporary:
                temporary.write_text("result")
        elif kind == "text":
            write_text(tmp_path / "out.json", "result")
        else:
            with atomic_folder(tmp_path / "out") as temporary:
                (temporary / "file").write_text("result")
    saved = Path(str(caught.value).split(": is complete")[0])
    assert (saved / "file" if kind == "folder" else saved).read_text() == "result"


def test_a_link_keeps_being_a_link_and_its_target_is_written(tmp_path: Path) -> None:
    (tmp_path / "disk").mkdir()
    for name, old in (("old.mp4", "old"), ("new.mp4", None)):
        target = tmp_path / "disk" / name
        if old is not None:
            target.write_text(old)
        link = tmp_path / f"link-{name}"
        link.symlink_to(target)
        assert check_output(link) == target and target.exists() == (old is not None)
        with atomic_path(link) as temporary:
            temporary.write_text("new")
        assert link.is_symlink() and target.read_text() == "new"
        write_text(link, "text")
        assert link.is_symlink() and target.read_text() == "text"
    assert sorted(p.name for p in (tmp_path / "disk").iterdir()) == ["new.mp4", "old.mp4"]


def test_an_impossible_output_is_known_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "folder").mkdir()
    (tmp_path / "to-folder").symlink_to("folder")
    (tmp_path / "dangling").symlink_to("missing/out.mp4")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_text("a")
    problems = {
        "loop": "loop of links",
        "folder": "is a directory",
        "to-folder": "is a directory",
        "dangling": "its folder .*missing does not exist",
        "missing/out.mp4": "its folder .*missing does not exist",
        "file/out.mp4": "its folder .*file does not exist",
        "pipe": "is a device or pipe",
        "/dev/null": "is a device or pipe",
        "x" * 256: "cannot be created .File name too long.",
        "y" * 255 + "/out.mp4": "does not exist",
        "/proc/out.mp4": "cannot be created|no permission",
    }
    before = sorted(p.name for p in tmp_path.iterdir())
    for name, problem in problems.items():
        for write in (check_output, lambda path: atomic_path(path).__enter__()):
            with pytest.raises(UserError, match=problem) as caught:
                write(tmp_path / name)
            assert "\n" not in str(caught.value)
    assert sorted(p.name for p in tmp_path.iterdir()) == before
    assert check_output(tmp_path / "pipe", streams=True) == tmp_path / "pipe"


@pytest.mark.parametrize("name", ["x" * 251 + ".mp4", "é" * 125 + ".mp4", "x." + "y" * 253])
def test_the_longest_names_are_written(name: str, tmp_path: Path) -> None:
    assert check_output(tmp_path / name) == tmp_path / name
    with atomic_path(tmp_path / name) as temporary:
        assert len(os.fsencode(temporary.name)) <= len(os.fsencode(name))
        temporary.write_text("a")
    assert content(tmp_path) == {name: "a"}
