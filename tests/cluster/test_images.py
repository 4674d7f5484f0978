"""Tests of the images: they are pinned, copy files that exist, and have the versions of constraints.txt."""

from __future__ import annotations

import fnmatch
import re
import shlex
from pathlib import Path

import pytest
import yaml

from xdub import __version__

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "cluster/images").glob("*.Dockerfile"))
YAMLS = sorted((ROOT / "cluster").rglob("*.yaml"))
PINS = dict(
    line.split("==") for line in (ROOT / "constraints.txt").read_text("utf-8").splitlines() if "==" in line
)
OURS = f"{__version__}-ray{PINS['ray']}-torch{PINS['torch']}-py311"


def instructions(path: Path) -> list[list[str]]:
    """Read a Dockerfile as pairs of an instruction and its arguments."""
    text = re.sub(r"^\s*#.*\n", "", path.read_text("utf-8"), flags=re.M).replace("\\\n", " ")
    return [
        [name, rest.strip()] for name, _, rest in (line.partition(" ") for line in text.splitlines() if line)
    ]


def used_images() -> list[tuple[str, str]]:
    """List the images of the cluster files, each with its file."""
    return [
        (str(path.relative_to(ROOT)), image)
        for path in YAMLS
        for image in re.findall(r"^\s*-?\s*(?:\w+_)?image: (\S+)", path.read_text("utf-8"), re.M)
    ]


def test_machines_with_and_without_gpus_have_an_image_of_their_own():
    assert [path.name for path in DOCKERFILES] == ["cpu.Dockerfile", "cuda.Dockerfile"]
    for kind in ("cpu", "cuda"):
        assert any(f"/xdub/{kind}:" in image for _, image in used_images())


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_files_that_an_image_copies_are_in_the_build_context(path):
    ignored = [
        line for line in (ROOT / ".dockerignore").read_text("utf-8").splitlines() if line[:1] not in ("#", "")
    ]
    assert ignored[0] == "*", "the build context holds only listed files"
    copied = [
        shlex.split(rest)[:-1] for name, rest in instructions(path) if name == "COPY" and "--from" not in rest
    ]
    for source in (each for sources in copied for each in sources):
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, f"{source} is in .dockerignore"
        assert not any(fnmatch.fnmatch(source, pattern) for pattern in ignored[1:] if pattern[0] != "!")


def test_images_copy_every_file_that_setup_reads():
    for path in DOCKERFILES:
        copied = " ".join(rest for name, rest in instructions(path) if name == "COPY").split()
        for needed in ("setup.py", "pyproject.toml", "README.md", "xdub", "kernels", "constraints.txt"):
            assert needed in copied, f"{path.name}: {needed}"


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_an_image_has_the_pinned_environment_and_runs_as_a_plain_user(path):
    text = path.read_text("utf-8")
    assert "-r /tmp/constraints.txt" in text and "/tmp/system-packages" in text
    steps = instructions(path)
    assert [rest for name, rest in steps if name == "USER"] == ["1000:1000"]
    last = max(number for number, (name, _) in enumerate(steps) if name == "RUN")
    assert steps.index(["USER", "1000:1000"]) > last
    assert "HOME=/home/xdub" in text and "RAY_AUTH_MODE=token" in text and "RAY_USAGE_STATS_ENABLED=0" in text
    assert not re.search(r"\b(sudo|curl .*\|)", text)


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.name)
def test_base_images_are_pinned_and_have_the_tested_python(path):
    bases = [
        rest for name, rest in instructions(path) if name == "ARG" and rest.split("=")[0] in ("BASE", "CUDA")
    ]
    assert bases
    for base in bases:
        tag = base.rpartition(":")[2]
        assert re.match(r"\d+\.\d+\.\d+-", tag), base
    assert any(re.match(r"BASE=python:3\.11\.\d+-slim-bookworm$", base) for base in bases)
    froms = [rest.split()[0] for name, rest in instructions(path) if name == "FROM"]
    stages = {rest.split()[2] for name, rest in instructions(path) if name == "FROM" and " AS " in rest}
    assert set(froms) <= {"${BASE}", "${CUDA}"} | stages


def test_our_images_carry_the_versions_of_the_pins():
    ours = [(file, image) for file, image in used_images() if "/xdub/" in image]
    assert len(ours) > 10
    for file, image in ours:
        assert image.rpartition(":")[2] == OURS, f"{file}: {image}"
    for path in DOCKERFILES:
        assert f"/{path.stem}:{OURS} " in path.read_text("utf-8"), (
            f"{path.name} shows the command that builds it"
        )
    cluster = yaml.safe_load((ROOT / "cluster/kuberay/raycluster.yaml").read_text("utf-8"))
    assert cluster["spec"]["rayVersion"] == PINS["ray"]


def test_every_image_has_a_version_and_none_is_latest():
    images = used_images()
    assert len(images) > 10 and len(YAMLS) > 5 and len(DOCKERFILES) == 2
    for file, image in images:
        assert re.search(r":\d[\w.-]+(@sha256:[0-9a-f]{64})?$", image), f"{file}: {image}"
    for path in [*YAMLS, *DOCKERFILES]:
        assert ":latest" not in path.read_text("utf-8"), path


def test_packages_that_an_image_adds_are_pinned_only_once():
    lines = (ROOT / "cluster/images/requirements.txt").read_text("utf-8").splitlines()
    added = dict(line.split("==") for line in lines if not line.startswith("#"))
    assert added and not set(added) & set(PINS)
    assert all(re.fullmatch(r"\d[\w.]*", version) for version in added.values())
    setup = (ROOT / "setup.py").read_text("utf-8")
    (least,) = re.findall(r"flash-attn>=([\d.]+)", setup)
    (built,) = re.findall(
        r"flash-attn==([\d.]+)", (ROOT / "cluster/images/cuda.Dockerfile").read_text("utf-8")
    )
    assert built.startswith(least)
