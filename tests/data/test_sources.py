"""A source is known by its content: no name, link or copy of it adds a clip or a ledger row a second time."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from xdub.data.clip import Clip
from xdub.data.ingest import Ingested, ingest
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.source_worker import Prepare
from xdub.data.sources import SOURCES
from xdub.data.testing import make_clip


def _prepare(done: list[str]) -> Prepare:
    """Return a function that creates a clip of a file's path and content, and a row of other frames."""

    def prepare_one(source: str) -> Iterator[Clip | LedgerRow]:
        done.append(source)
        text = Path(source).read_text()
        if text == "bad":
            yield LedgerRow(input=source, status="rejected", check="face")
            return
        yield make_clip(len(text), num_frames=5, speaker=Path(source).parent.name, clip_id=f"{source}-{text}")
        yield LedgerRow(
            input=source, clip_id="frames 5-6", status="rejected", check="length", value=float(len(text))
        )

    return prepare_one


@pytest.fixture
def box(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three sources of two sizes; it is the current folder."""
    (tmp_path / "talks").mkdir()
    for name, text in {"a": "one", "b": "two", "c": "four"}.items():
        (tmp_path / "talks" / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def _run(*sources: str | Path, **options) -> tuple[Ingested, list[str]]:
    """Ingest files, or the files of folders, into OUT; return the result and the sources that were prepared."""
    done: list[str] = []
    files = [each for s in sources for each in (sorted(Path(s).iterdir()) if Path(s).is_dir() else [s])]
    return ingest(files, "out", lambda: _prepare(done), workers=1, **options), done


def _content() -> tuple[tuple[str, ...], list[LedgerRow]]:
    return read_manifest("out").ids, list(Ledger("out").rows())


@pytest.mark.parametrize("spelling", ["renamed", "moved", "absolute", "dotted", "through a link", "copied"])
def test_sources_under_another_name_add_nothing(box: Path, spelling: str) -> None:
    assert _run("talks")[0].clips == 3
    before = _content()
    if spelling == "renamed":
        other = shutil.move("talks", "speeches")
    elif spelling == "moved":
        Path("far/away").mkdir(parents=True)
        other = shutil.move("talks", "far/away/talks")
    elif spelling == "through a link":
        Path("link").symlink_to("talks", target_is_directory=True)
        other = "link"
    elif spelling == "copied":
        other = shutil.copytree("talks", "copy")
    else:
        other = str(box / "talks") if spelling == "absolute" else "far/.././talks"
        Path("far").mkdir()
    for _ in range(2):
        result, done = _run(other)
        assert (result.clips, result.sources, result.settled, done) == (0, 3, 3, [])
        assert _content() == before
        assert (result.counts["kept"], result.counts["rejected"]) == (3, 3)


def test_a_source_named_twice_and_its_copies_are_prepared_once(box: Path) -> None:
    shutil.copy("talks/a", "talks/d")
    os.link("talks/b", "talks/e")
    result, done = _run("talks", "./talks", box / "talks")
    assert (result.clips, result.sources, result.copies, len(done)) == (3, 3, 2, 3)
    assert {row.input for row in Ledger("out").rows()} == {"talks/a", "talks/b", "talks/c"}
    again, done = _run("talks")
    assert (again.clips, again.sources, again.copies, done) == (0, 3, 2, [])


def test_only_files_that_may_be_copies_are_read_before_the_work(box: Path, monkeypatch) -> None:
    hashed: list[str] = []
    monkeypatch.setattr(
        "xdub.data.sources.file_sha256", lambda path: hashed.append(path.name) or path.read_text()
    )
    _run("talks")
    # "one" and "two" have one size; "four" is hashed when it is prepared.
    assert sorted(hashed) == ["a", "b", "c"]
    hashed.clear()
    _run("talks")
    assert hashed == []
    Path("talks/new").write_text("longer")
    shutil.move("talks/c", "talks/moved")
    _run("talks")
    assert sorted(hashed) == ["moved", "new"]
    hashed.clear()
    _run("talks")
    assert hashed == []


def test_a_file_that_is_replaced_is_prepared_again_and_its_old_clips_stay(box: Path) -> None:
    Path("talks/b").write_text("bad")
    assert _run("talks")[0].clips == 2
    before = list(read_manifest("out").ids)
    Path("talks/b").write_text("repaired")
    Path("talks/c").write_text("seven..")
    os.utime("talks/a")
    result, done = _run("talks")
    assert (result.clips, sorted(done)) == (2, ["talks/b", "talks/c"])
    assert list(read_manifest("out").ids[:2]) == before
    rows = [(row.input, row.status, row.value) for row in Ledger("out").rows() if row.input != "talks/a"]
    assert sorted(rows, key=str) == [
        ("talks/b", "kept", None),
        ("talks/b", "rejected", 8.0),
        ("talks/c", "kept", None),
        ("talks/c", "kept", None),
        ("talks/c", "rejected", 7.0),
    ]
    assert _run("talks")[1] == []


def test_a_file_that_replaces_a_copy_is_an_input_of_its_own(box: Path) -> None:
    _run("talks")
    shutil.copytree("talks", "copy")
    _run("copy")
    before = list(Ledger("out").rows())
    Path("copy/b").write_text("another")
    assert _run("copy")[1] == ["copy/b"]
    rows = list(Ledger("out").rows())
    assert rows[: len(before)] == before and {row.input for row in rows[len(before) :]} == {"copy/b"}


@pytest.mark.parametrize("spelling", ["talks", "./talks", "absolute"])
def test_a_data_set_of_an_earlier_version_knows_its_sources_by_path(box: Path, spelling: str) -> None:
    _run("talks")
    shutil.rmtree(Path("out") / SOURCES)
    before = _content()
    result, done = _run(box / "talks" if spelling == "absolute" else spelling)
    assert (result.clips, result.settled, done) == (0, 3, []) and _content() == before


def test_a_call_that_is_killed_between_content_and_rows_is_repeated(box: Path, monkeypatch) -> None:
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Ledger, "add", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        _run("talks")
    result, done = _run("talks")
    assert len(done) == 3 and result.counts["kept"] == 3 and len(read_manifest("out").ids) == 3
