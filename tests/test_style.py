"""The rules of CONTRIBUTING.md on names, words and the length of files, checked on every tracked file."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import tokenize
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE_LINES, TEST_LINES = 300, 400
"""Longest file of code, and of tests."""

NAMES = frozenset(
    "told tell some found made given here there known seen asked begun place what which how who whom whose no says say "
    "wanted gone meant took goes _told _tell _plain".split()
)
"""Names that do not describe what they hold."""

FIRST = frozenset(
    "Of As What Who Whoever Whom Whose So How Whether Where That Those Which Nobody Nothing None Here There It They "
    "And But Or".split()
)
"""Words that a docstring must not begin with, because such a docstring needs the code below it."""

PHRASES = re.compile(
    r"\btold\b|\btells?\b|\bsays? (?:so|no|which|what|how|where|when)\b|\bhas the say\b|\blet go\b|\bmourn|\bwhoever\b"
    r"|\bnobody\b|\bgo(?:es)? around\b|\b(?:is|are) asked\b|\banew\b|\bgets? on\b|\bgot on\b|\bgetting on\b"
    r"|\bbeforehand\b|\bhad better\b|\bthe one that\b|\bstands? for itself\b|\bput to use\b|\bno use for\b"
    r"|\bhas nothing to\b|\bhand(?:s|ed)? (?:over|out)\b|\bin its hand\b|\bits word\b|\bas (?:ever|it is)\b"
    r"|\bwhat is (?:half|left|there)\b|\banother one may\b|\bput together\b|\bbrings? home\b",
    re.IGNORECASE,
)
"""Turns of phrase that an engineer reads twice."""


@cache
def tracked() -> tuple[Path, ...]:
    """Files of the repository, or of its copy without git, that people read."""
    listing = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    names = listing.stdout.splitlines()
    paths = (
        [ROOT / name for name in names]
        if names
        else [path for path in ROOT.rglob("*") if ".venv" not in path.parts]
    )
    return tuple(
        path
        for path in paths
        if path.suffix in (".py", ".md", ".yaml", ".sh") and path.is_file() and path != Path(__file__)
    )


def defined_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and name of every variable, argument, function, class and exception that a file defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
            yield node.lineno, node.name
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name


def docstrings(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of the docstrings of modules, classes, functions, fields and constants."""
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if not isinstance(body, list):
            continue
        for before, statement in zip([None, *body], body, strict=False):
            documented = isinstance(before, (ast.Assign, ast.AnnAssign)) or (
                before is None and isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            )
            if documented and isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
                if isinstance(statement.value.value, str):
                    yield statement.lineno, statement.value.value


def prose(text: str, tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and text of comments, and of strings with a blank in them."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and " " in node.value:
            yield node.lineno, node.value


def violations(text: str, *, is_python: bool) -> Iterator[str]:
    """`LINE: reason` for everything in one file that breaks a rule."""
    if not is_python:
        for number, line in enumerate(text.splitlines(), 1):
            if match := PHRASES.search(line):
                yield f"{number}: {match[0]!r}"
        return
    tree = ast.parse(text)
    for line, name in defined_names(tree):
        if name in NAMES:
            yield f"{line}: the name {name!r} does not describe what it holds"
    for line, words in docstrings(tree):
        first = (words.split() or [""])[0].rstrip(",.:")
        if first in FIRST or len(words.split()) < 2:
            yield f"{line}: the docstring {words[:40]!r} does not make sense by itself"
    for line, words in prose(text, tree):
        if match := PHRASES.search(words):
            yield f"{line}: {match[0]!r} in {words.strip()[:60]!r}"


def test_names_and_words_follow_the_rules():
    paths = [path for path in tracked() if path.name != "CHANGELOG.md"]
    assert len(paths) > 300
    lines = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in paths
        for line in violations(path.read_text("utf-8"), is_python=path.suffix == ".py")
    ]
    assert not lines, "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("found = 1", "the name 'found'"),
        ("def told(x):\n    pass", "the name 'told'"),
        ("def f(here): pass", "the name 'here'"),
        ("try:\n    pass\nexcept ValueError as no:\n    pass", "the name 'no'"),
        ('"""Of this Python."""', "does not make sense"),
        ('X = 1\n"""Seconds."""', "does not make sense"),
        ("x = 1  # whoever reads this", "'whoever'"),
        ("raise ValueError(f'failed {3} times without getting on')", "'getting on'"),
    ],
)
def test_a_broken_rule_is_reported(text, reason):
    assert any(reason in line for line in violations(text, is_python=True))


def test_plain_engineering_prose_passes():
    text = '"""Return the rows of a ledger, oldest first."""\nrows = [1]  # copied, because the caller may append\n'
    assert list(violations(text, is_python=True)) == []


def test_files_are_short_enough_to_read_in_one_go():
    lengths = {
        path.relative_to(ROOT): path.read_text("utf-8").count("\n")
        for path in tracked()
        if path.suffix == ".py"
    }
    assert len(lengths) > 300
    too_long = {
        str(path): length
        for path, length in lengths.items()
        if length > (TEST_LINES if path.parts[0] == "tests" else SOURCE_LINES)
    }
    assert too_long == {}
