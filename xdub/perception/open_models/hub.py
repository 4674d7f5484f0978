"""Files of the Hugging Face hub and of web servers, and the facts that a server states about them."""

from __future__ import annotations

import http.client
import os
import re
import urllib.error
import urllib.parse
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

from xdub.errors import UserError
from xdub.perception.open_models.download import TIMEOUT, Remote, download

SHA256 = re.compile(r"[0-9a-f]{64}")
"""Form of the hash that the hub states for a large file; a small file has another kind of hash."""
TRUE = {"1", "on", "yes", "true"}
"""Values of HF_HUB_OFFLINE that forbid downloads, as in huggingface_hub."""


@dataclass(frozen=True, kw_only=True)
class HubFile:
    """A file of a Hugging Face repository."""

    repo: str
    file: str
    revision: str = "main"
    """Commit or branch."""

    def __str__(self) -> str:
        return f"{self.repo}/{self.file} from the Hugging Face hub"

    @property
    def home(self) -> str:
        """Repository and revision, for lists."""
        return f"{self.repo}@{self.revision[:12]}"

    @property
    def url(self) -> str:
        """Address of the file; ``HF_ENDPOINT`` names another server than huggingface.co."""
        return f"{_endpoint()}/{self.repo}/resolve/{self.revision}/{urllib.parse.quote(self.file)}"

    def remote(self, size: int | None = None, sha256: str | None = None) -> Remote:
        """Return the address with size and hash; the ones that the hub states take the place of unknown ones."""
        remote = Remote(url=self.url, size=size, sha256=sha256, token=_token())
        return remote if size is not None and sha256 is not None else _stated(remote)

    def extract(self, target: Path) -> None:
        """Download the file to ``target``. Raise UserError if downloads are off or the hub has no such file."""
        if is_offline():
            raise UserError(f"{self}: downloads are off (HF_HUB_OFFLINE)")
        download(self.remote(), target)


@dataclass(frozen=True, kw_only=True)
class WebFile:
    """A file at an address of its own."""

    url: str

    def __str__(self) -> str:
        return self.url

    @property
    def home(self) -> str:
        """Server, for lists."""
        return urllib.parse.urlsplit(self.url).netloc

    def remote(self, size: int | None = None, sha256: str | None = None) -> Remote:
        """Return the address with size and hash, as far as they are known."""
        return Remote(url=self.url, size=size, sha256=sha256)


def _endpoint() -> str:
    """Return the address of the hub. Raise UserError if HF_ENDPOINT is no address of a web server."""
    endpoint = (os.environ.get("HF_ENDPOINT") or "https://huggingface.co").rstrip("/")
    try:
        parts = urllib.parse.urlsplit(endpoint)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or any(character.isspace() for character in endpoint):
        raise UserError(f"HF_ENDPOINT={endpoint}: is no web address; use one such as https://huggingface.co")
    return endpoint


def is_offline() -> bool:
    """Return whether the environment forbids downloads (HF_HUB_OFFLINE)."""
    return os.environ.get("HF_HUB_OFFLINE", "").lower() in TRUE


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Handler that follows no redirect, because the hub states a file's hash in the redirect itself."""

    def redirect_request(self, *_: object, **__: object) -> None:
        """Return no request."""
        return None


def _stated(remote: Remote) -> Remote:
    """Return the remote with the size and sha256 that the hub states for it, without a download."""
    request = urllib.request.Request(remote.url, method="HEAD", headers={"Accept-Encoding": "identity"})
    if remote.token:
        request.add_unredirected_header("Authorization", f"Bearer {remote.token}")
    try:
        with urllib.request.build_opener(_NoRedirect).open(request, timeout=TIMEOUT) as answer:
            headers = answer.headers
    except urllib.error.HTTPError as error:
        if not 300 <= error.code < 400:
            # The download reports the status of the server.
            return remote
        headers = error.headers
    except (OSError, http.client.HTTPException):
        return remote
    size, tag = headers.get("X-Linked-Size"), (headers.get("X-Linked-Etag") or "").strip('"')
    return replace(
        remote,
        size=int(size) if remote.size is None and size and size.isdecimal() else remote.size,
        sha256=tag if remote.sha256 is None and SHA256.fullmatch(tag) else remote.sha256,
    )


def _token() -> str | None:
    """Return the user's login of the hub, if there is one."""
    from huggingface_hub import get_token

    return get_token()
