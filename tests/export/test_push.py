"""An export is uploaded with card and licence, and a rehearsal needs no network."""

from __future__ import annotations

import base64
import json
import shutil
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from xdub.cli import app
from xdub.cli.errors import run_app
from xdub.errors import UserError
from xdub.export import export_weights, push_folder


class Hub(ThreadingHTTPServer):
    """The part of the hub's interface that an upload of small files uses; `files` holds what was committed."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.repos: list[str] = []
        self.files: dict[str, bytes] = {}
        self.refuse = False
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:  # noqa: N802 (name of http.server)
        self._answer(200, {"id": "me/lora", "sha": "0" * 40, "siblings": []})

    def do_POST(self) -> None:  # noqa: N802
        body, hub = self.rfile.read(int(self.headers.get("Content-Length", 0))), self.server
        if hub.refuse:
            return self._answer(401, {"error": "Invalid credentials"})
        if self.path == "/api/repos/create":
            hub.repos.append(json.loads(body)["name"])
            return self._answer(200, {"url": f"{hub.url}/me/lora", "name": "me/lora"})
        if "/preupload/" in self.path:
            names = [file["path"] for file in json.loads(body)["files"]]
            modes = [{"path": name, "uploadMode": "regular", "shouldIgnore": False} for name in names]
            return self._answer(200, {"files": modes})
        if "/commit/" in self.path:
            for line in body.splitlines():
                entry = json.loads(line)
                if entry["key"] == "file":
                    hub.files[entry["value"]["path"]] = base64.b64decode(entry["value"]["content"])
            return self._answer(
                200, {"commitUrl": f"{hub.url}/me/lora/commit/1", "commitOid": "1" * 40, "success": True}
            )
        return self._answer(200, {})

    def _answer(self, status: int, content: object) -> None:
        data = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    hub = Hub()
    thread = threading.Thread(target=hub.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", hub.url)
    monkeypatch.setenv("HF_TOKEN", "secret")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    # The library reads this variable once, when it is imported.
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    yield hub
    hub.shutdown()
    hub.server_close()
    thread.join()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("push") / "lip"
    export_weights("tiny", out, "peft", phase="lip", licence="apache-2.0")
    return out


def test_a_rehearsal_lists_files_sizes_and_card_without_a_network(folder: Path, capsys) -> None:
    assert run_app(app, ["weights", "push", str(folder), "--repo", "me/lora", "--dry-run"]) == 0
    text = capsys.readouterr().out
    assert "adapter_model.safetensors" in text and "licence: apache-2.0" in text
    assert "# tiny: lip" in text and "nothing was uploaded" in text


def test_an_upload_commits_every_file_to_the_repository(hub: Hub, folder: Path, capsys) -> None:
    (folder / ".cache").mkdir(exist_ok=True)
    (folder / ".cache" / "hidden").write_text("x")
    assert run_app(app, ["weights", "push", str(folder), "--repo", "me/lora"]) == 0
    assert f"{hub.url}/me/lora/commit/1" in capsys.readouterr().out
    assert hub.repos == ["lora"] and "README.md" in hub.files and ".cache/hidden" not in hub.files
    assert all((folder / name).read_bytes() == content for name, content in hub.files.items())
    assert set(hub.files) == {path.name for path in folder.iterdir() if path.is_file()}


def test_a_refusal_of_the_hub_is_one_line_with_the_remedy(hub: Hub, folder: Path) -> None:
    hub.refuse = True
    with pytest.raises(UserError, match="me/lora: the upload failed.*set HF_TOKEN") as caught:
        push_folder(folder, "me/lora")
    assert "\n" not in str(caught.value)


def test_a_closed_port_and_a_server_that_drops_connections_are_one_line_each(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_Handler, "do_POST", lambda handler: handler.connection.close())
    with pytest.raises(UserError, match="me/lora: the upload failed.*go online"):
        push_folder(folder, "me/lora")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free.getsockname()[1]}")
    with pytest.raises(UserError, match="me/lora: the upload failed.*go online") as caught:
        push_folder(folder, "me/lora")
    assert "\n" not in str(caught.value)


def test_an_error_of_the_program_is_not_reported_as_a_failed_upload(
    hub: Hub, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise TypeError("a wrong argument")

    monkeypatch.setattr("huggingface_hub.HfApi.create_repo", broken)
    with pytest.raises(TypeError, match="a wrong argument"):
        push_folder(folder, "me/lora")


def test_files_that_changed_since_the_export_are_refused(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "o")
    (tmp_path / "o" / "adapter_model.safetensors").write_bytes(b"short")
    with pytest.raises(UserError, match="adapter_model.safetensors: is not the file that was exported"):
        push_folder(tmp_path / "o", "me/lora", dry_run=True)
    (tmp_path / "o" / "adapter_config.json").unlink()
    with pytest.raises(UserError, match="adapter_config.json: is missing"):
        push_folder(tmp_path / "o", "me/lora", dry_run=True)


def test_a_folder_without_card_licence_or_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    export_weights("tiny", tmp_path / "o", "peft", phase="lip")
    with pytest.raises(UserError, match="states no licence; export again with --licence"):
        push_folder(tmp_path / "o", "me/lora", dry_run=True)
    (tmp_path / "o" / "README.md").unlink()
    with pytest.raises(UserError, match="has no model card README.md"):
        push_folder(tmp_path / "o", "me/lora", dry_run=True)
    (tmp_path / "o" / "README.md").write_text((folder / "README.md").read_text())
    (tmp_path / "o" / "w.safetensors.part").write_text("x")
    with pytest.raises(UserError, match="is unfinished"):
        push_folder(tmp_path / "o", "me/lora", dry_run=True)
    with pytest.raises(UserError, match="use OWNER/NAME"):
        push_folder(folder, "lora", dry_run=True)
    with pytest.raises(UserError, match="HF_HUB_OFFLINE is set"):
        push_folder(folder, "me/lora")
