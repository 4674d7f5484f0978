"""Tests that every command in the documentation exists: its verb, its options, its module, its file.

Blocks marked `sh` are read line by line. Commands of this repository (`xdub`, `python -m`, the command after `ray job
submit ... --`) are checked against the code. Other programs (kubectl, docker, ray up) cannot run in a test, so their
blocks have a comment `<!-- not run: why -->` above them; commands of this repository in such a block are checked, too.
`<!-- not run in tests: why -->` marks commands that only scripts/newcomer runs. Blocks without a comment in
getting-started.md are run by test_docs_getting_started.py.
"""

from __future__ import annotations

import atexit
import importlib.util
import re
import shlex
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import typer.main
import yaml

from xdub.cli import app
from xdub.config import load_recipe
from xdub.errors import UserError

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path for pattern in ("*.md", "docs/*.md", "cluster/*.md", "kernels/*.md") for path in ROOT.glob(pattern)
)
COMMAND = typer.main.get_command(app)

FENCE = re.compile(r"^(?:(<!-- not run(?: in tests)?: [^\n]+? -->)\n)?```(\w*)\n(.*?)^```$", re.M | re.S)
HARMLESS = {"cd", "export", "mkdir", "touch", "git", "umask", "ls", "tail", "until"}
"""Programs that a block may use without a comment, because their failure is visible."""
RECIPE = re.compile(r"^```yaml\n# (\S+\.yaml)\n(base: .*?)^```$", re.M | re.S)
"""A whole recipe file that a document shows; its first line names the file."""
PROGRAMS = {"xdub", ".venv/bin/xdub", "make", "python", ".venv/bin/python", "kubectl", "ray", "docker"}
"""First words by which a block is recognised as commands."""


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the comment that explains why no test runs it."""

    language: str
    text: str
    reason: str | None

    def lines(self) -> Iterator[list[str]]:
        """Yield each command as words, without comments and prompts; pipes and lists are split."""
        for line in self.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line.removeprefix("$ "), comments=True)
            command: list[str] = []
            for word in [*words, ";"]:
                if word in (";", "&&", "||", "|"):
                    if command:
                        yield command
                    command = []
                else:
                    command.append(word)


def blocks(path: Path) -> list[Block]:
    """Read all fenced blocks of a document."""
    return [
        Block(language, text, comment or None)
        for comment, language, text in FENCE.findall(path.read_text("utf-8"))
    ]


def ours(words: list[str]) -> list[str] | None:
    """Return the words after `xdub` if the command runs it, directly or through Ray, and None otherwise."""
    while words and re.fullmatch(r"\w+=\S*", words[0]):
        words = words[1:]
    if not words:
        return None
    if words[0] == "ray" and words[1:3] == ["job", "submit"] and "--" in words:
        return ours(words[words.index("--") + 1 :])
    if Path(words[0]).name == "xdub":
        return _submitted(words[2:]) if words[1:2] == ["submit"] and "--help" not in words else words[1:]
    if Path(words[0]).name.startswith("python") and words[1:2] and words[1].startswith("ray_jobs/"):
        assert (ROOT / words[1]).is_file(), words[1]
        return [Path(words[1]).stem, *words[2:]]
    return None


def _submitted(words: list[str]) -> list[str]:
    """Return the command that `xdub submit` sends, without the options of `submit` itself."""
    values = {"--address": 1, "--name": 1, "--env": 1, "--file": 1, "--detach": 0}
    kept: list[str] = []
    while words:
        word, *words = words
        if word.partition("=")[0] not in values:
            kept.append(word)
        elif "=" not in word:
            words = words[values[word] :]
    return kept


def objections(words: list[str], command: Any = COMMAND, name: str = "xdub") -> list[str]:
    """List the mistakes that the command line reports: unknown verbs, options and values, missing arguments."""
    settings: list[str] = []
    while hasattr(command, "commands"):
        if not words:
            return [f"{name}: no verb"]
        if words[0] == "--help" or words[0] == "--version":
            return []
        verb, *words = words
        if verb not in command.commands:
            return [f"{name}: no verb {verb!r}"]
        command, name = command.commands[verb], f"{name} {verb}"
    options = {flag: each for each in command.params for flag in (*each.opts, *each.secondary_opts)}
    present, arguments, mistakes = set(), [], []
    while words:
        word, *words = words
        if word == "--" and name.startswith("ray "):
            arguments += words
            break
        if not word.startswith("-"):
            arguments.append(word)
            continue
        flag, equals, value = word.partition("=")
        if flag == "--help":
            return []
        if flag not in options or options[flag].param_type_name != "option":
            mistakes.append(f"{name}: no option {flag}")
            continue
        option = options[flag]
        present.add(option.name)
        if option.is_flag:
            continue
        if not equals:
            if not words:
                mistakes.append(f"{name}: {flag} needs a value")
                continue
            value, *words = words
        mistakes += _choice_objections(name, flag, option, value)
        settings += [value] if flag == "--set" else []
        if flag in ("--recipe", "-r"):
            settings.insert(0, value)
    positional = [each for each in command.params if each.param_type_name == "argument"]
    least = sum(each.required for each in positional)
    most = None if any(each.nargs == -1 for each in positional) else len(positional)
    if len(arguments) < least or (most is not None and len(arguments) > most):
        mistakes.append(f"{name}: {len(arguments)} arguments")
    for word, each in zip(arguments, positional, strict=False):
        mistakes += _choice_objections(name, each.name, each, word)
    for each in (each for each in command.params if each.param_type_name == "option"):
        in_environment = getattr(each, "envvar", None)
        if each.required and each.name not in present and not in_environment:
            mistakes.append(f"{name}: {each.opts[0]} is missing")
    return mistakes + _recipe_objections(name, settings)


def _choice_objections(name: str, flag: str, parameter: Any, value: str) -> list[str]:
    kind = parameter.type_descriptor.annotation if hasattr(parameter, "type_descriptor") else None
    if isinstance(kind, type) and issubclass(kind, Enum) and value not in {each.value for each in kind}:
        return [f"{name}: {flag} {value} is not one of its choices"]
    return []


def _recipe_objections(name: str, settings: list[str]) -> list[str]:
    if not settings:
        return []
    recipe, *changes = settings if "=" not in settings[0] else ["tiny", *settings]
    if recipe.isupper():
        return []  # The name is a placeholder.
    try:
        load_recipe(_shown_recipes().get(recipe, recipe), changes)
    except UserError as error:
        return [f"{name}: {error}"]
    return []


@cache
def _shown_recipes() -> dict[str, Path]:
    """Write the recipe files that the documents show; return their paths by name."""
    folder = Path(tempfile.mkdtemp(prefix="shown-recipes-"))
    atexit.register(shutil.rmtree, folder)
    for document in DOCUMENTS:
        for name, text in RECIPE.findall(document.read_text("utf-8")):
            (folder / name).write_text(text)
    return {path.name: path for path in folder.iterdir()}


def ray_objections(words: list[str]) -> list[str]:
    """List the mistakes that Ray's own command line reports."""
    from ray.scripts.scripts import cli

    return objections(words[1:], cli, "ray")


def module_exists(name: str) -> bool:
    """Check that Python can import a module, without importing it."""
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def check_line(words: list[str], explained: bool) -> list[str]:
    """List the mistakes of one command; `explained` blocks may use programs of others."""
    while words and re.fullmatch(r"\w+=\S*", words[0]):
        words = words[1:]
    if not words:
        return []
    command = ours(words)
    if command is not None:
        return objections(command) + (ray_objections(words) if words[0] == "ray" else [])
    program = Path(words[0]).name
    if program == "ray":
        return ray_objections(words)
    if program.startswith("python") and words[1:2] == ["-m"]:
        if words[2] == "pytest":
            files = [word.partition("::")[0] for word in words[3:] if "/" in word and word[0] != "-"]
            return [f"pytest: no {name}" for name in files if not (ROOT / name).exists()]
        top = words[2].split(".")[0]
        own = (ROOT / top).is_dir()
        return [] if (module_exists(words[2]) if own else explained) else [f"no module {words[2]}"]
    if program == "make":
        targets = re.findall(r"^(\w[\w-]*):", (ROOT / "Makefile").read_text("utf-8"), re.M)
        unknown = [word for word in words[1:] if "=" not in word and not word.startswith("-")]
        return [f"make: no target {word}" for word in unknown if word not in targets]
    if (ROOT / words[0]).is_file() or program in HARMLESS or explained:
        return []
    return [f"{program}: not of this repository; explain above the block why no test runs it"]


def documented() -> list[Any]:
    """List all blocks of commands with their documents, as parameters of a test."""
    return [
        pytest.param(path, block, id=f"{path.relative_to(ROOT)}:{number}")
        for path in DOCUMENTS
        for number, block in enumerate(blocks(path))
        if block.language == "sh"
    ]


@pytest.mark.parametrize(("path", "block"), documented())
def test_commands_in_the_documents_exist(path, block):
    mistakes = [each for words in block.lines() for each in check_line(words, block.reason is not None)]
    assert mistakes == [], f"{path.name}: {block.text}"


def test_the_entrypoint_of_the_cluster_s_job_is_an_xdub_command():
    job = yaml.safe_load((ROOT / "cluster/kuberay/rayjob.yaml").read_text("utf-8"))
    words = shlex.split(job["spec"]["entrypoint"])
    assert words[0] == "xdub" and objections(words[1:]) == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_block_of_commands_is_marked_sh(path):
    for block in blocks(path):
        if block.language != "sh":
            lines = (line.removeprefix("$ ").split("#")[0].split() for line in block.text.splitlines())
            started = [words[0] for words in lines if words and words[0] in PROGRAMS]
            # A block that shows a command's output begins with a prompt.
            assert not started or block.text.startswith("$ "), f"{path.name}: {started}: mark the block ```sh"


def test_shown_output_belongs_to_a_command_that_exists():
    for path in DOCUMENTS:
        for block in blocks(path):
            if block.language == "" and block.text.startswith("$ "):
                words = shlex.split(block.text.splitlines()[0].removeprefix("$ "))
                assert check_line(words, explained=False) == [], path.name


@pytest.mark.parametrize(
    ("line", "objection"),
    [
        ("xdub trane generator", "no verb 'trane'"),
        ("xdub bootstrap --recipe tiny --data d --oot x", "no option --oot"),
        ("xdub bootstrap --recipe tiny --data d", "--out is missing"),
        ("xdub eval scores --video a", "no verb 'scores'"),
        ("xdub train --recipe tiny --data d --out o", "0 arguments"),
        ("xdub plan --recipe tiny --gpus", "needs a value"),
        ("xdub plan --recipe tiny --gpus 1 --phase lips", "is not one of its choices"),
        ("xdub train lips --recipe tiny --data d --out o", "is not one of its choices"),
        ("xdub pairs --recipe tiny --generator g --data d --out o --set train.worker=3", "train.worker"),
        (
            "ray job submit --working-dir . -- python ray_jobs/bootstrap.py --recipe tiny --dat d",
            "no option --dat",
        ),
        ("XDUB_WEIGHTS=x .venv/bin/xdub weights fetchh", "no verb 'fetchh'"),
        ("python -m xdub.evaluate.train_sincnet", "no module"),
        ("make tests", "no target tests"),
        (".venv/bin/python -m pytest tests/kernel -k rope", "no tests/kernel"),
        ("python -m unknown_tool", "no module unknown_tool"),
        (
            "ray job submit --working-dirr . -- python ray_jobs/bootstrap.py --help",
            "no option --working-dirr",
        ),
        ("ray upp cluster/aws.yaml", "no verb 'upp'"),
        ("kubectl apply -f x", "explain above the block why"),
    ],
)
def test_a_mistake_in_a_command_is_reported(line, objection):
    assert any(objection in each for each in check_line(shlex.split(line), explained=False)), line


def test_a_comment_belongs_to_one_block_and_every_block_is_read(tmp_path):
    text = "<!-- not run: x -->\n```sh\na\n```\nthen\n```sh\nb\n```\n\n```\nc\n```\n"
    text += "<!-- not run: y -->\n```sh\nd\n```\n"
    (tmp_path / "a.md").write_text(text)
    rows = [(each.text.strip(), each.language, each.reason is not None) for each in blocks(tmp_path / "a.md")]
    assert rows == [("a", "sh", True), ("b", "sh", False), ("c", "", False), ("d", "sh", True)]
    for path in DOCUMENTS:
        assert len(blocks(path)) == len(re.findall("^```", path.read_text("utf-8"), re.M)) / 2, path.name


def test_correct_commands_have_no_objections():
    for line in (
        "xdub --help",
        "xdub plan --recipe xdub-1b --gpus 32 --gpu a100-80gb --phase editor --fit",
        "xdub weights fetch",
        "xdub runs compare a b --out c.html",
        "ray job submit --working-dir . -- python ray_jobs/train.py lip --recipe tiny --data d --out o --resume",
        "python -m perf report",
        ".venv/bin/python -m pytest tests/test_docs.py::test_links -k links -q",
    ):
        assert check_line(shlex.split(line), explained=False) == []
