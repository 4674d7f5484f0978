"""Wheels of this very code, whether it runs from a checkout or is installed: what a job imports on the cluster.

Without requirements: those are in the cluster's image. The same files give the same bytes and name. The name tells
other files apart (build tag), because Ray takes a wheel that it has seen by name for the same.
"""

from __future__ import annotations

import base64
import hashlib
import importlib
import zipfile
from pathlib import Path

import xdub

PACKAGES = ("xdub", "xdub_kernels")
EPOCH = (1980, 1, 1, 0, 0, 0)


def build_wheels(folder: Path) -> list[Path]:
    """One wheel a package, in ``folder``."""
    return [_build(package, folder) for package in PACKAGES]


def _build(package: str, folder: Path) -> Path:
    source = importlib.import_module(package).__file__
    assert source is not None
    root, version = Path(source).parent, xdub.__version__
    files = {
        f"{package}/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    info = f"{package}-{version}.dist-info"
    files[f"{info}/METADATA"] = f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n".encode()
    contents = "".join(f"{name} {_digest(data)}\n" for name, data in files.items())
    build = f"1{hashlib.sha256(contents.encode()).hexdigest()[:16]}"  # a build tag begins with a digit
    facts = (
        "Wheel-Version: 1.0",
        "Generator: xdub",
        "Root-Is-Purelib: true",
        f"Build: {build}",
        "Tag: py3-none-any",
    )
    files[f"{info}/WHEEL"] = "".join(f"{fact}\n" for fact in facts).encode()
    record = "".join(f"{name},sha256={_digest(data)},{len(data)}\n" for name, data in files.items())
    files[f"{info}/RECORD"] = f"{record}{info}/RECORD,,\n".encode()
    path = folder / f"{package}-{version}-{build}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as wheel:
        for name, data in files.items():
            entry = zipfile.ZipInfo(name, EPOCH)
            entry.compress_type, entry.external_attr = zipfile.ZIP_DEFLATED, 0o644 << 16
            wheel.writestr(entry, data)
    return path


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
