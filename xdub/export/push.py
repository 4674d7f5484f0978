"""Upload of an export to a repository of the Hugging Face hub, and its rehearsal without a network."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from xdub.errors import UserError, error_reason
from xdub.export.card import CARD, card_header
from xdub.files.content import file_sha256
from xdub.model.adapter_export import RECORD
from xdub.perception.open_models.hub import is_offline

REPO = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")
"""Form of a repository's name."""
UNFINISHED = (".part", ".tmp", ".lock")
"""Endings of files that are left by an interrupted command."""


@dataclass(frozen=True, kw_only=True)
class Upload:
    """Content of an upload."""

    repo: str
    files: Mapping[str, int]
    """File below the folder -> bytes."""
    licence: str
    card: str
    """Text of the model card."""
    url: str | None = None
    """Address of the commit; None after a rehearsal."""


def push_folder(
    folder: str | Path,
    repo: str,
    *,
    dry_run: bool = False,
    private: bool = False,
    message: str = "Upload by xdub",
) -> Upload:
    """Upload a folder with its model card to a repository, which is created if it does not exist.

    Args:
        dry_run: check everything and upload nothing, without a network.
        private: visibility of a new repository.

    Raises:
        UserError: the folder has no model card or no licence, a file is unfinished, the name of the repository is no
            owner/name, or the hub refuses the upload.
    """
    if not REPO.fullmatch(repo):
        raise UserError(f"--repo {repo}: use OWNER/NAME, such as me/my-dubbing-lora")
    upload = _checked(Path(folder), repo)
    if dry_run:
        return upload
    if is_offline():
        raise UserError("HF_HUB_OFFLINE is set: unset it, or rehearse with --dry-run")
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HTTPError

    api = HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None)
    try:
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=repo, folder_path=folder, allow_patterns=sorted(upload.files), commit_message=message
        )
    # Errors of connections and statuses, of refused names, and of the client's transfer library.
    except (OSError, HTTPError, ValueError, RuntimeError) as error:
        reason = error_reason(error)
        raise UserError(
            f"{repo}: the upload failed ({reason}); go online, log in with `hf auth login` or set HF_TOKEN"
        ) from error
    return replace(upload, url=str(commit.commit_url))


def _checked(folder: Path, repo: str) -> Upload:
    """Return the content of an upload. Raise UserError if the folder is not ready for other people."""
    if not folder.is_dir():
        raise UserError(f"{folder}: there is no such folder; `xdub export` writes one")
    files = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not any(part.startswith(".") for part in path.relative_to(folder).parts)
    }
    if unfinished := [name for name in files if name.endswith(UNFINISHED)]:
        raise UserError(f"{folder / unfinished[0]}: is unfinished; run the command that writes it again")
    if CARD not in files:
        raise UserError(f"{folder}: has no model card {CARD}; `xdub export` writes one")
    card = (folder / CARD).read_text("utf-8")
    licence = card_header(card).get("license")
    if not isinstance(licence, str) or not licence:
        raise UserError(
            f"{folder / CARD}: states no licence; export again with --licence, such as --licence apache-2.0"
        )
    if not any(name.endswith(".safetensors") for name in files):
        raise UserError(f"{folder}: has no .safetensors file to share")
    _check_recorded(folder)
    return Upload(repo=repo, files=files, licence=licence, card=card)


def _check_recorded(folder: Path) -> None:
    """Raise UserError if a file of an export is missing or was changed since the export."""
    try:
        record = json.loads((folder / RECORD).read_text("utf-8"))["files"].items()
    except FileNotFoundError:
        return
    except (OSError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / RECORD}: is damaged; export again") from error
    for name, digest in record:
        if not (folder / name).is_file():
            raise UserError(f"{folder / name}: is missing; export again")
        if file_sha256(folder / name) != digest:
            raise UserError(f"{folder / name}: is not the file that was exported; export again")
