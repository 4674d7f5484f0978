"""No verb prints the credentials that the URI of a data set holds."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from xdub.bootstrap.bootstrap import _check_inputs
from xdub.cli import app, review
from xdub.cli.errors import run_app
from xdub.config import load_recipe
from xdub.data import dataset, manifest
from xdub.data import prepare as preparation
from xdub.errors import UserError
from xdub.files.storage import locate
from xdub.pairs import factory, importer
from xdub.render import dataset as rendering
from xdub.speakers import grouping

SECRET = "the-secret"
URI = f"s3://the-key:{SECRET}@bucket/ds?region=us-east-1"


class Opened:
    """A data set of one clip."""

    def __enter__(self) -> Opened:
        return self

    def __exit__(self, *error: object) -> None: ...

    def compact(self) -> tuple[int, int]:
        return 2, 1


@pytest.mark.parametrize(
    "words",
    [
        ("render", "--out", URI, "--clips", "1"),
        ("prepare", "talks", "--out", URI),
        ("pairs", "--recipe", "tiny", "--generator", "tiny", "--data", "s3://b/ds", "--out", URI),
        ("import-pairs", "scenes", "--out", URI),
        ("speakers", "--data", URI),
        ("review", "--data", URI),
        ("data", "compact", URI),
    ],
    ids=lambda words: words[0],
)
def test_a_verb_prints_the_uri_of_its_data_without_credentials(
    words: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    counts = dict.fromkeys(("kept", "rendered", "clips", "sources", "copies", "inputs"), 0)
    counts |= dict.fromkeys(("speakers", "measured", "alone", "duplicates"), 0)
    result = SimpleNamespace(**counts, counts="1 kept", bad={})
    for module, name in (
        (rendering, "render_dataset"),
        (preparation, "prepare_videos"),
        (factory, "build_pairs"),
        (importer, "import_pairs"),
    ):
        monkeypatch.setattr(module, name, lambda *args, **options: result)
    monkeypatch.setattr("xdub.speakers.group_clips", lambda *args, **options: result)
    monkeypatch.setattr("xdub.data_card.write_card", lambda folder: locate(folder) / "card.html")
    monkeypatch.setattr(review, "_clips", lambda *args: [])
    monkeypatch.setattr(manifest, "read_manifest", lambda folder: SimpleNamespace(ids=["a"]))
    monkeypatch.setattr(dataset, "DataSet", lambda folder: Opened())
    assert run_app(app, list(words)) == 0
    printed = capsys.readouterr()
    assert "s3://bucket/ds" in printed.out and SECRET not in printed.out + printed.err
    assert ("these pairs are not tracked" in printed.err) == (words[0] == "pairs")


def test_an_error_names_the_uri_of_the_data_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = SimpleNamespace(folder=locate(URI), kind="pairs")
    for module in (grouping, manifest):
        monkeypatch.setattr(module, "read_manifest", lambda folder: pairs)
    monkeypatch.setattr("xdub.data.parts.Parts.remove_torn", lambda parts: None)
    recipe = load_recipe("tiny")
    for call in (
        lambda: grouping.group_clips(recipe, URI),
        lambda: _check_inputs(recipe, URI, None),
    ):
        with pytest.raises(UserError, match="s3://bucket/ds holds pairs") as error:
            call()
        assert SECRET not in str(error.value)
