"""Locations: one interface for a disk and for any other file system, without credentials in its texts."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest

from xdub.errors import UserError
from xdub.files.storage import locate
from xdub.files.uris import shown, without_secrets

SECRETS = "s3://AKIAKEY:se%2Fcret@bucket/a/b?endpoint_override=127.0.0.1:9&scheme=http&region=hidden"


def addresses(tmp_path: Path) -> list[str]:
    """Addresses of an empty folder on a disk and of one in a file system of fsspec."""
    return [str(tmp_path / "disk"), (tmp_path / "uri").as_uri(), f"memory://{tmp_path.name}/folder"]


def test_every_file_system_has_the_same_files(tmp_path: Path) -> None:
    for address in addresses(tmp_path):
        folder = locate(address)
        assert not folder.exists() and folder.sizes() == {} and list(_walk(folder)) == []
        (folder / "b/2").write_bytes(b"22")
        (folder / "a").write_bytes(b"1")
        (folder / "a").write_bytes(b"111")
        (folder / ".hidden").write_bytes(b"0")
        (tmp_path / "source").write_bytes(b"4444")
        (folder / "c").upload(tmp_path / "source")
        assert folder.sizes() == {".hidden": 1, "a": 3, "c": 4}
        assert list(_walk(folder)) == [("a", 3), ("c", 4), ("b/2", 2)]
        assert (folder / "a").size() == 3 and (folder / "a").is_file() and (folder / "b").exists()
        with pickle.loads(pickle.dumps(folder / "c")).open() as file:
            file.seek(2)
            assert file.read() == b"44"
        (folder / "b/2").download(tmp_path / "copy")
        assert (tmp_path / "copy").read_bytes() == (folder / "b/2").read_bytes() == b"22"
        (folder / "a").delete()
        (folder / "a").delete()
        assert not (folder / "a").exists() and (folder / "b/2").parent == folder / "b"
        with pytest.raises(FileNotFoundError):
            (folder / "a").size()


def _walk(folder) -> list[tuple[str, int]]:
    return [
        (location.path.removeprefix(folder.path).strip("/"), size) for location, size, _ in _entries(folder)
    ]


def _entries(folder):
    return folder.walk() if folder.exists() else ()


@pytest.mark.parametrize("name", ["s3:clips", "file:clips", "-%41"])
def test_a_text_without_two_slashes_is_a_path(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    address = locate(name)
    (address / "x").write_bytes(b"1")
    assert (tmp_path / name / "x").read_bytes() == b"1" and str(address) == name
    assert address.full == str(tmp_path / name) == locate(tmp_path / name).full


def test_credentials_appear_in_no_text() -> None:
    address = locate(SECRETS) / "shard.parquet"
    for text in (str(address), repr(address), address.full, str(address.parent), shown(SECRETS)):
        for secret in ("AKIA", "cret", "hidden", "127.0.0.1"):
            assert secret not in text
    assert str(address) == "s3://bucket/a/b/shard.parquet" and address.path == "bucket/a/b/shard.parquet"
    with pytest.raises(UserError) as error:
        locate("s4://AKIAKEY:secret@bucket/x?token=hidden")
    assert "s4://...@bucket/x" in str(error.value) and "secret" not in str(error.value)
    with pytest.raises(UserError) as error:
        locate("s3://AKIAKEY:secret@bucket/x?token=hidden")
    assert not any(secret in str(error.value) for secret in ("secret", "hidden", "AKIA"))
    cleaned = without_secrets(SECRETS, "denied: AKIAKEY, se/cret, se%2Fcret, hidden")
    assert cleaned == "denied: ..., ..., ..., ..."


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "", "a\\b"])
def test_no_name_leads_out_of_its_folder(name: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leads out of its folder"):
        locate(tmp_path) / name


def test_links_are_not_listed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"1")
    (tmp_path / "ds").mkdir()
    (tmp_path / "ds/link").symlink_to(tmp_path / "secret")
    assert locate(tmp_path / "ds").sizes() == {} and list(locate(tmp_path / "ds").walk()) == []


def test_a_walk_skips_a_name_with_a_backslash_with_a_note(tmp_path: Path, capfd) -> None:
    (tmp_path / "a.mp4").write_bytes(b"1")
    (tmp_path / "dir\\clip.mp4").write_bytes(b"2")
    assert list(_walk(locate(tmp_path))) == [("a.mp4", 1)]
    assert (
        capfd.readouterr().err
        == f"{tmp_path}: skipping 'dir\\\\clip.mp4': names with a backslash are not read\n"
    )


def test_a_walk_reads_one_folder_at_a_time(tmp_path: Path) -> None:
    for name in ("a/1", "b/1"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_bytes(b"1")
    walk = locate(tmp_path).walk()
    assert next(walk)[0].name == "1"
    (tmp_path / "b/2").write_bytes(b"2")
    assert [location.path[-3:] for location, _, _ in walk] == ["b/1", "b/2"]
