"""Tests that the messages which docs/troubleshooting.md explains are messages of the code."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROWS = re.findall(
    r"^\| (`.+?`.*?) \| .+ \| .+ \|$", (ROOT / "docs/troubleshooting.md").read_text("utf-8"), re.M
)
MESSAGES = [
    message
    for row in ROWS
    if not re.search(r"\((Ray|torch)'s\)", row)
    for message in re.findall("`(.+?)`", row)
]


@cache
def texts() -> tuple[str, ...]:
    """Return every string of the code; a value in an f-string becomes one character."""
    strings = []
    for path in (ROOT / "xdub").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.JoinedStr):
                parts = [part.value if isinstance(part, ast.Constant) else "\0" for part in node.values]
                strings.append("".join(map(str, parts)))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                strings.append(node.value)
    return tuple(strings)


def pattern(message: str) -> re.Pattern[str]:
    """Compile a message of the table in which `…` stands for any text."""
    return re.compile(".*".join(re.escape(part) for part in message.split("…")), re.S)


def test_the_page_explains_more_than_40_messages():
    assert len(MESSAGES) > 40


@pytest.mark.parametrize("message", MESSAGES)
def test_a_message_of_the_page_is_in_the_code(message):
    fixed = message.replace("…", "")
    assert len(fixed) > 12, "the message is too short for a search"
    assert any(pattern(message).search(text) for text in texts()), message
