"""Tests that files which the documents name exist in the repository, or are written by the code under that name.

The files of a run have their names in `xdub/files/run_folder.py`.
"""

from __future__ import annotations

import ast
import re
import subprocess
from functools import cache
from pathlib import Path

import pytest

from xdub.files.run_folder import PhaseFolder

ROOT = Path(__file__).parents[1]
SUFFIXES = "jsonl|json|offset|txt|db|parquet|lock"
NAME = re.compile(rf"(?:^|[/ ])([\w.*<>-]+\.(?:{SUFFIXES}))$")
"""A file name at the end of a code span; `*`, `<word>` and words in capitals stand for any text."""


@cache
def tracked() -> tuple[str, ...]:
    """Return the paths of all files of the repository."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True)
    return tuple(listing.stdout.splitlines())


@cache
def written() -> tuple[re.Pattern[str], ...]:
    """Return a pattern for every string of the code that ends in a file name; a value in an f-string is any text.

    A string that begins with two suffixes, as in ``path.with_suffix(".a.json")``, may follow any name.
    """
    shells = "".join((ROOT / name).read_text("utf-8") for name in tracked() if name.endswith(".sh"))
    patterns = {re.escape(name) for name in re.findall(rf"[\w-]+\.(?:{SUFFIXES})\b", shells)}
    for path in (name for name in tracked() if name.endswith(".py") and not name.startswith("tests/")):
        for node in ast.walk(ast.parse((ROOT / path).read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [re.escape(p.value) if isinstance(p, ast.Constant) else ".+" for p in node.values]
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                parts = [re.escape(node.value)]
            else:
                continue
            last = "".join(map(str, parts)).rpartition("/")[2]
            stem = last.rpartition(r"\.")[0].replace(".+", "")
            # Without a stem of its own, the pattern would match every name.
            if stem and re.fullmatch(rf"\S+\\\.(?:{SUFFIXES})", last):
                patterns.add(".+" + last if last.startswith(r"\.") else last)
    return tuple(re.compile(pattern) for pattern in sorted(patterns))


def names(text: str) -> set[str]:
    """Return the file names in the code spans of a document."""
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    spans = re.findall(r"`([^`\n]+)`", prose)
    return {match[1] for span in spans if (match := NAME.search(span))}


def exists(name: str) -> bool:
    """Check that the repository has a file of this name, or that the code writes one."""
    if any(Path(path).name == name for path in tracked()):
        return True
    example = re.sub(r"\*|<\w+>|[A-Z]{3,}", "x", name)
    return any(pattern.fullmatch(example) for pattern in written())


DOCUMENTS = [name for name in tracked() if name.endswith(".md") and name != "CHANGELOG.md"]


def test_the_documents_name_many_files():
    assert len(set().union(*(names((ROOT / document).read_text("utf-8")) for document in DOCUMENTS))) > 30


@pytest.mark.parametrize("document", DOCUMENTS)
def test_files_that_a_document_names_exist(document):
    missing = {name for name in names((ROOT / document).read_text("utf-8")) if not exists(name)}
    assert missing == set(), f"{document} names files that nothing writes"


@pytest.mark.parametrize("name", ["journal.offset", "hang-attempt*.txt", "never-written.json"])
def test_a_file_that_nothing_writes_is_reported(name):
    assert not exists(name)


def test_placeholders_stand_for_any_text():
    assert exists("hang-<time>-rank<r>.txt")


@pytest.mark.parametrize(
    "name", ["steps", "journal", "result", "recipe", "skipped", "quarantine", "attempts", "failures"]
)
def test_a_document_may_name_every_file_of_a_phase(name):
    folder = PhaseFolder("out", "editor")
    assert exists(getattr(folder, name).name)
    assert exists(folder.offset("numbers").name) and exists(folder.offset("files").name)
