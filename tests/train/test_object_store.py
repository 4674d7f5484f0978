"""Latents are computed and read in an object store as on a disk: the same files, samples and losses."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from xdub.data.latent_cache.folder import required_caches
from xdub.data.shards import ShardWriter
from xdub.data.testing import make_clip
from xdub.encode import encode_latents
from xdub.errors import UserError
from xdub.files.lines import read_lines
from xdub.files.storage import locate
from xdub.train.run import train_phase


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Start an S3 server on loopback and yield the URI of a bucket."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    endpoint = f"http://{host}:{port}"
    for name, value in {
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    urllib.request.urlopen(urllib.request.Request(f"{endpoint}/footage", method="PUT"))
    yield "s3://footage"
    server.stop()


def test_latents_in_an_object_store_have_the_files_and_losses_of_latents_on_a_disk(
    small, bucket: str, tmp_path: Path
) -> None:
    local, remote = tmp_path / "data", f"{bucket}/data"
    with ShardWriter(local, rows_per_shard=4) as writer:
        for seed in range(8):
            writer.add(make_clip(seed, num_frames=17, size=32))
    for file, *_ in locate(local).walk():
        assert file.local is not None
        (locate(remote) / str(file.local.relative_to(local))).upload(file.local)
    recipe = small("train.window_stride=2", "train.latents=cached", "train.steps=2")
    with pytest.raises(UserError, match=r"2 of 2 shards of s3://footage/data have no latents.*--data s3://"):
        train_phase("generator", recipe, remote, tmp_path / "run", local=True)
    for data in (local, remote):
        assert encode_latents(recipe, data, local=True).encoded == 2
    names = {}
    for data in (local, remote):
        (folder,) = required_caches(recipe, "generator", [data])
        names[data] = set(folder.sizes())
    entries = {name for name in names[remote] if name.endswith(".parquet")}
    assert names[remote] == entries == names[local] - {".lock"}, "the same bytes have the same names"
    # A killed run leaves some shards without entries.
    (folder / min(entries)).delete()
    assert encode_latents(recipe, remote, local=True).encoded == 1 and set(folder.sizes()) == entries
    curves = []
    for number, data in enumerate((local, remote)):
        result = train_phase("generator", recipe, data, tmp_path / str(number), local=True)
        curves.append([(step["loss"], step["sample_ids"]) for step in read_lines(result.folder.steps)])
    assert curves[0] == curves[1] and len(curves[0]) == 2
    assert "secret" not in "".join(
        path.read_text("utf-8") for path in (tmp_path / "1").rglob("*") if path.suffix in (".json", ".yaml")
    )
