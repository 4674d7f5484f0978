"""Tests that no service listens on all addresses of a machine, except in containers that are listed by name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
FOLDERS = ("xdub", "kernels", "perf", "ray_jobs", "scripts", "cluster", "docs", ".ci")
SUFFIXES = {"", ".py", ".yaml", ".yml", ".Dockerfile", ".ini", ".sql", ".md", ".txt", ".toml"}

EVERYWHERE = re.compile(
    r"""(?<![\d.])0\.0\.0\.0(?![\d.])   # IPv4's "all of them"
      | \[::\] | ["']::["'] | host[=\s]+::(?!\w)   # IPv6's
      | INADDR_ANY
      | \bbind\(\(\s*["']{2}\s*,        # Python's
    """,
    re.X,
)
EXCEPTIONS = {
    # A pod's own address, for KubeRay's operator and the head's service; NetworkPolicies restrict who may connect.
    ("cluster/kuberay/raycluster.yaml", "dashboard-host: 0.0.0.0"),
    ("cluster/kuberay/rayjob.yaml", "dashboard-host: 0.0.0.0"),
    ("cluster/kuberay/mlflow.yaml", "- --host=0.0.0.0"),
    # A container's own address, whose port is published on the machine's loopback.
    ("cluster/mlflow/compose.yaml", "- --host=0.0.0.0   # the container's own address"),
}


def lines() -> Iterator[tuple[str, str]]:
    """Yield path and text of every line of code, settings and documents."""
    files = ("Makefile", "setup.py", "pyproject.toml", "README.md", "CONTRIBUTING.md")
    below = (path for folder in FOLDERS for path in (ROOT / folder).rglob("*"))
    for path in [*(ROOT / name for name in files), *below]:
        if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
            for line in path.read_text("utf-8").splitlines():
                yield str(path.relative_to(ROOT)), line.strip()


def test_only_the_listed_containers_listen_on_all_addresses():
    assert {(path, line) for path, line in lines() if EVERYWHERE.search(line)} == EXCEPTIONS


@pytest.mark.parametrize(
    "line",
    ["--host 0.0.0.0", "host='0.0.0.0'", "s.bind(('', 80))", "listen [::]:80", 'host="::"', "INADDR_ANY"],
)
def test_the_pattern_matches_every_spelling_of_all_addresses(line):
    assert EVERYWHERE.search(line)


@pytest.mark.parametrize(
    "line", ["1.0.0.0.0", "127.0.0.1:80", "a[::2]", "x[:, ::2]", "10.0.0.0/8", "std::vector"]
)
def test_the_pattern_does_not_match_other_addresses_and_code(line):
    assert not EVERYWHERE.search(line)


def test_ports_of_containers_are_published_on_loopback_only():
    paths = list((ROOT / "cluster").rglob("compose*.yaml"))
    assert paths
    for path in paths:
        services = yaml.safe_load(path.read_text("utf-8"))["services"]
        assert any(service.get("ports") for service in services.values()), path
        for name, service in services.items():
            assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
            assert "network_mode" not in service and not service.get("privileged"), name


def test_no_file_switches_a_safeguard_off():
    forbidden = (
        "--disable-security-middleware",
        "RAY_AUTH_MODE=disabled",
        "allowed-hosts=*",
        "mode: disabled",
    )
    for path, line in lines():
        if path.startswith("docs/") or path.endswith(".md"):
            continue  # Documents may explain why a safeguard stays on.
        assert not any(word in line for word in forbidden), f"{path}: {line}"
