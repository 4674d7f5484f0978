"""File systems in which a killed writer leaves a part of a file under the file's name."""

from __future__ import annotations

from pathlib import Path

import pytest

from xdub.data import parts as parts_module
from xdub.data.clip import to_row
from xdub.data.dataset import DataSet
from xdub.data.ledger import Ledger, LedgerRow
from xdub.data.manifest import read_manifest
from xdub.data.manifest_files import assign_speakers, speaker_parts
from xdub.data.shard_files import write_shard
from xdub.data.sources import Source, Sources
from xdub.data.testing import make_clip
from xdub.files.storage import Location, locate

ROWS = [to_row(make_clip(seed, num_frames=5, size=16)) for seed in range(2)]


class Killed(BaseException):
    """The end of a process at a write."""


@pytest.mark.parametrize("folder", ["manifest", "ledger", "sources"])
@pytest.mark.parametrize("fan", [2, 16])
def test_a_torn_last_part_is_removed_where_files_do_not_appear_complete(
    tmp_path: Path, folder: str, fan: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts_module, "FAN", fan)
    out, real = locate(f"memory://{tmp_path.name}/{folder}{fan}"), Location.write_bytes

    def write_all() -> None:
        with DataSet(out, kind="clips") as dataset:
            sources = Sources(out, dataset.ledger)
            for unit in range(2):
                name, input = f"u{unit}", f"v{unit}"
                if not dataset.ledger.settled(input):
                    state = ((name, 1, 1),)
                    sources.record(Source(name=name, input=input, files=(name,), state=state, content=name))
                    sources.flush()
                    dataset.commit(
                        [write_shard(out, ROWS[unit : unit + 1])],
                        [LedgerRow(input=input, clip_id=ROWS[unit]["clip_id"], status="kept")],
                    )

    def write(location: Location, content: bytes) -> None:
        is_last = location.name.startswith("00000001-" if fan > 2 else "00000000-00000001-")
        if location.parent.name == folder and is_last:
            real(location, bytes(content)[:100])
            raise Killed
        real(location, content)

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(Location, "write_bytes", write)
        patch.setattr(DataSet, "__exit__", lambda *_: None)
        write_all()
    write_all()
    assert read_manifest(out, verify=True).ids == [ROWS[0]["clip_id"], ROWS[1]["clip_id"]]
    assert Ledger(out).counts()["kept"] == 2
    # A torn part of the speakers is removed by the next writer as well.
    assign_speakers(out, [ROWS[0]["clip_id"]], ["a"])
    (name,) = speaker_parts(out).folder.sizes()
    (out / "speakers" / name).write_bytes(b"torn")
    DataSet(out).close()
    assert (read_manifest(out).speakers or ())[0] == ROWS[0]["speaker"]
