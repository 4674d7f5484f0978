"""A picture of a page shows the page, for somebody with the cookie."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from PIL import Image

from perf.browser import find_browser, take_picture

pytestmark = pytest.mark.slow


class Greeting(BaseHTTPRequestHandler):
    """Says who the cookie says it is."""

    def do_GET(self) -> None:
        name = dict(part.split("=") for part in self.headers.get("Cookie", "name=nobody").split("; "))["name"]
        body = f"<body style='background: #00f'>hello {name}</body>".encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def page() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Greeting) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


@pytest.fixture
def browser() -> str:
    found = find_browser()
    if found is None:
        pytest.skip("no Chromium on PATH")
    return found


def test_the_page_is_asked_with_the_cookie_and_taken_in_full_size(browser, page, tmp_path: Path) -> None:
    path = tmp_path / "page.png"
    take_picture(browser, page, path, cookies={"name": "ada"}, wait_for="hello ada", size=(400, 300))
    with Image.open(path) as picture:
        assert picture.size == (400, 300)
        assert picture.convert("RGB").getpixel((390, 290)) == (0, 0, 255)


def test_a_page_that_does_not_show_what_it_must_is_told_of(browser, page, tmp_path: Path) -> None:
    with pytest.raises(TimeoutError, match="does not show 'hello ada' but 'hello nobody'"):
        take_picture(browser, page, tmp_path / "page.png", cookies={}, wait_for="hello ada", seconds=15)
