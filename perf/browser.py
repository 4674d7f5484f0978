"""A picture of a page as a real browser shows it, where one is installed (Debian: `apt-get install chromium`)."""

from __future__ import annotations

import asyncio
import base64
import itertools
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

NAMES = ("chromium", "google-chrome", "google-chrome-stable", "chromium-browser")


def find_browser() -> str | None:
    return next((path for path in map(shutil.which, NAMES) if path), None)


def take_picture(
    browser: str,
    url: str,
    path: Path,
    *,
    cookies: Mapping[str, str],
    wait_for: str,
    size: tuple[int, int] = (1500, 900),
    seconds: float = 90.0,
) -> None:
    """Write what is seen at ``url`` to the PNG ``path``, as soon as the page shows the text ``wait_for``.

    Args:
        cookies: name -> value, for the page's site. They go over DevTools' socket: no command line shows them.
        size: of the window, (width, height) in pixels.

    TimeoutError tells what the page showed instead.
    """
    with tempfile.TemporaryDirectory(prefix="browser-") as profile:
        # As root Chromium has no sandbox; it sees our own pages alone.
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
        options += [f"--user-data-dir={profile}", f"--window-size={size[0]},{size[1]}"]
        process = subprocess.Popen(
            [browser, *options, "--remote-debugging-port=0", "about:blank"],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            port = _port(Path(profile) / "DevToolsActivePort", process, seconds)
            picture = asyncio.run(_picture(port, url, cookies, wait_for, size, seconds))
        finally:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    path.write_bytes(picture)


def _port(file: Path, process: subprocess.Popen, seconds: float) -> int:
    """Of DevTools; the browser writes it when it listens (on loopback)."""
    end = time.monotonic() + seconds
    while not (file.is_file() and file.read_text().strip()):
        if process.poll() is not None or time.monotonic() > end:
            raise TimeoutError("the browser does not start")
        time.sleep(0.1)
    return int(file.read_text().split()[0])


async def _picture(
    port: int, url: str, cookies: Mapping[str, str], wait_for: str, size: tuple[int, int], seconds: float
) -> bytes:
    import aiohttp

    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}/json/list") as answer:
            pages = [page for page in await answer.json() if page["type"] == "page"]
        async with session.ws_connect(pages[0]["webSocketDebuggerUrl"], max_msg_size=0) as socket:
            numbers = itertools.count(1)

            async def call(method: str, **parameters: Any) -> dict[str, Any]:
                number = next(numbers)
                await socket.send_json({"id": number, "method": method, "params": parameters})
                while (told := await socket.receive_json(timeout=seconds)).get("id") != number:
                    pass  # an event
                if "error" in told:
                    raise RuntimeError(f"{method}: {told['error']['message']}")
                return told["result"]

            width, height = size
            await call(
                "Emulation.setDeviceMetricsOverride",
                width=width,
                height=height,
                deviceScaleFactor=1,
                mobile=False,
            )
            for name, value in cookies.items():
                await call("Network.setCookie", name=name, value=value, url=url, httpOnly=True)
            await call("Page.navigate", url=url)
            end, shown = time.monotonic() + seconds, ""
            while wait_for not in shown:
                if time.monotonic() > end:
                    raise TimeoutError(f"{url} does not show {wait_for!r} but {shown[:300]!r}")
                await asyncio.sleep(0.3)
                text = await call(
                    "Runtime.evaluate", expression="document.body ? document.body.innerText : ''"
                )
                shown = text["result"].get("value", "")
            await asyncio.sleep(1.0)  # fades and bars
            return base64.b64decode((await call("Page.captureScreenshot", format="png"))["data"])
