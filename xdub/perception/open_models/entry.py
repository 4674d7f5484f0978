"""Entry of the registry for a model of several files: source, size and hash of each, licence, and signature."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from xdub.perception.open_models.hub import HubFile, WebFile
from xdub.perception.open_models.shapes import Shapes


@dataclass(frozen=True, kw_only=True)
class Licence:
    """Terms of a model, which the user must know before it is used."""

    name: str
    url: str
    """Page with the text of the terms."""
    identifier: str = "other"
    """Identifier of the hub's model cards, such as apache-2.0; ``other`` for terms without one."""
    notice: str = ""
    """Restriction or open question beyond the name, one sentence."""


@dataclass(frozen=True, kw_only=True)
class ModelFile:
    """One file of a model."""

    name: str
    """Path below the model's folder."""
    source: HubFile | WebFile
    size: int
    """Size in bytes."""
    sha256: str | None = None
    """Published hash. None: unknown here, so the hash that the hub states at the download is recorded and compared."""
    exact: bool = True
    """False where only an estimate of the size is known."""


@dataclass(frozen=True, kw_only=True)
class OpenModel:
    """A model of several files, in a folder of its own."""

    role: str
    """Name in `xdub weights` and of the model's folder."""
    purpose: str
    licence: Licence
    files: tuple[ModelFile, ...]
    signature: str | None = None
    """Expected signature (`xdub.files.tensors`) of the tensors in `signed`. None: the hashes are the only evidence."""
    signed: tuple[str, ...] = ()
    """Safetensors files whose tensors together have the signature."""
    diffusers: str | None = None
    """Repository of the hub with a diffusers pipeline of the same weights. None: there is none."""
    shapes: Callable[[], Shapes] | None = None
    """Return the expected tensors, from which a difference is named. None: only the signature is known."""

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(file.size for file in self.files)

    @property
    def repo(self) -> str | None:
        """Repository of the first file on the hub, for the field base_model of model cards."""
        return next((file.source.repo for file in self.files if isinstance(file.source, HubFile)), None)

    @property
    def is_exact(self) -> bool:
        """True if the size of every file is known exactly."""
        return all(file.exact for file in self.files)

    @property
    def proof(self) -> str:
        """The known evidence of the content, in words."""
        hashes = sum(file.sha256 is not None for file in self.files)
        parts = [f"sha256 of {hashes} of {len(self.files)} files"] if hashes else ["no sha256 published"]
        return ", ".join(parts + (["signature of the tensors"] if self.signature else []))
