"""Tests of the installation: the wheel has both packages and all data files, and the pins fit the requirements."""

from __future__ import annotations

import re
import subprocess
import sys
import zipfile
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]


def pins() -> dict[str, str]:
    """Read the pinned version of every package from constraints.txt."""
    lines = (ROOT / "constraints.txt").read_text("utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))


@pytest.fixture(scope="module")
def wheel_names(tmp_path_factory) -> set[str]:
    folder = tmp_path_factory.mktemp("wheel")
    steps = ["egg_info", "--egg-base", str(folder), "build", "--build-base", str(folder / "build")]
    command = [sys.executable, "setup.py", "--quiet", *steps, "bdist_wheel", "--dist-dir", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = folder.glob("*.whl")
    return set(zipfile.ZipFile(wheel).namelist())


def test_the_wheel_has_two_top_level_packages_and_no_module_named_kernels(wheel_names):
    top = {name.split("/")[0] for name in wheel_names if ".dist-info/" not in name}
    assert top == {"xdub", "xdub_kernels"}


def test_the_wheel_has_every_file_of_the_packages(wheel_names):
    for base, package in ((ROOT, "xdub"), (ROOT / "kernels", "xdub_kernels")):
        files = {
            str(path.relative_to(base))
            for path in (base / package).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert files - wheel_names == set()


def test_every_pin_is_a_version_that_its_requirement_allows():
    pinned = pins()
    for line in requires("xdub") or []:
        requirement = Requirement(line)
        if requirement.marker and any(
            f'extra == "{extra}"' in str(requirement.marker) for extra in ("gpu", "faces")
        ):
            continue
        assert requirement.specifier.contains(pinned[requirement.name.lower()]), line


def test_pins_are_exact_versions_without_a_build_of_one_machine():
    for name, pin in pins().items():
        assert re.fullmatch(r"[a-z0-9.-]+", name) and re.fullmatch(r"[0-9][0-9a-z.]*", pin), f"{name}=={pin}"


def test_installed_versions_are_the_pinned_ones():
    different = {}
    for name, pin in pins().items():
        try:
            installed = version(name).split("+")[0]
        except PackageNotFoundError:
            installed = "missing"
        if installed != pin:
            different[name] = (pin, installed)
    assert different == {}
