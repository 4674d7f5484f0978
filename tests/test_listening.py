"""Nothing here listens on all addresses of a machine. The exceptions are containers behind a policy, by name."""

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
    # A pod's own address, through which KubeRay's operator and the head's service come; NetworkPolicies say who may.
    ("cluster/kuberay/raycluster.yaml", "dashboard-host: 0.0.0.0"),
    ("cluster/kuberay/rayjob.yaml", "dashboard-host: 0.0.0.0"),
    ("cluster/kuberay/mlflow.yaml", "- --host=0.0.0.0"),
    # A container's own address; its port is published on the machine's loopback.
    (
        "cluster/mlflow/compose.yaml",
        "- --host=0.0.0.0   # the container's own address",
    ),
}


def lines() -> Iterator[tuple[str, str]]:
    single = [
        ROOT / name for name in ("Makefile", "setup.py", "pyproject.toml", "README.md", "CONTRIBUTING.md")
    ]
    for path in [*single, *(each for folder in FOLDERS for each in (ROOT / folder).rglob("*"))]:
        if path.is_file() and path.suffix in SUFFIXES and "__pycache__" not in path.parts:
            for line in path.read_text("utf-8").splitlines():
                yield str(path.relative_to(ROOT)), line.strip()


def test_nothing_listens_everywhere_but_the_named_containers():
    found = {(path, line) for path, line in lines() if EVERYWHERE.search(line)}
    assert found == EXCEPTIONS


@pytest.mark.parametrize(
    "line",
    ["--host 0.0.0.0", "host='0.0.0.0'", "s.bind(('', 80))", "listen [::]:80", 'host="::"', "INADDR_ANY"],
)
def test_what_listens_everywhere_is_recognised(line):
    assert EVERYWHERE.search(line)


@pytest.mark.parametrize(
    "line", ["1.0.0.0.0", "127.0.0.1:80", "a[::2]", "x[:, ::2]", "10.0.0.0/8", "std::vector"]
)
def test_what_only_looks_like_it_is_not(line):
    assert not EVERYWHERE.search(line)


def test_ports_of_containers_are_published_on_loopback_only():
    for path in (ROOT / "cluster").rglob("compose*.yaml"):
        for name, service in yaml.safe_load(path.read_text("utf-8"))["services"].items():
            assert all(str(port).startswith("127.0.0.1:") for port in service.get("ports", [])), name
            assert "network_mode" not in service and not service.get("privileged"), name


def test_no_safeguard_is_switched_off():
    forbidden = (
        "--disable-security-middleware",
        "RAY_AUTH_MODE=disabled",
        "allowed-hosts=*",
        "mode: disabled",
    )
    for path, line in lines():
        if path.startswith("docs/") or path.endswith(".md"):
            continue  # may say why not
        assert not any(word in line for word in forbidden), f"{path}: {line}"
