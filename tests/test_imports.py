"""The import graph of docs/architecture.md, read from the source: arrows go one way, heavy packages have one door."""

from __future__ import annotations

import ast
import graphlib
import importlib.machinery
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

BASE = {
    "errors",
    "seeding",
    "config",
    "recipes",
    "runtime_env",
    "ray_session",
    "ray_address",
    "ray_machines",
    "geometry",
    "precision",
    "files",
    "heap",
    "progress",
    "speech_windows",
}
"""Parts of xdub that anything may import; they import only one another."""

ALLOWED = {
    "media": set(),
    "pool": set(),
    "diffusion": set(),
    "model": {"xdub_kernels", "diffusion", "perception"},
    "perception": {"media"},
    "headers": {"perception"},
    "report": {"perception", "media"},
    "screen": {"perception", "media"},
    "speakers": {"pool", "screen", "data", "perception"},
    "masks": {"perception"},
    "data": {"pool", "screen", "masks", "perception", "media"},
    "tracking": {"data", "report"},
    "data_card": {"data", "report"},
    "render": {"pool", "data", "media"},
    "losses": {"diffusion", "perception", "xdub_kernels"},
    "dub": {"model", "diffusion", "data", "perception", "media"},
    "pairs": {
        "screen",
        "pool",
        "headers",
        "dub",
        "model",
        "data",
        "tracking",
        "report",
        "perception",
        "media",
        "diffusion",
    },
    "plan": {"model", "diffusion", "losses", "data", "dub", "xdub_kernels"},
    "encode": {"headers", "pool", "model", "data"},
    "train": {
        "headers",
        "plan",
        "tracking",
        "report",
        "model",
        "diffusion",
        "losses",
        "data",
        "perception",
        "media",
        "xdub_kernels",
    },
    "evaluate": {"model", "data", "perception", "media"},
    "fit": {"evaluate", "model", "data", "perception", "media"},
    "miniature": {"perception", "masks"},
    "export": {"model", "perception"},
    "submit": {"headers"},
    "bootstrap": {"pool", "encode", "headers", "train", "pairs", "dub", "model", "data", "media"},
    "doctor": {"encode", "headers", "train", "pairs", "dub", "model", "diffusion", "data", "perception"},
    "demo": {
        "bootstrap",
        "evaluate",
        "report",
        "train",
        "tracking",
        "pairs",
        "dub",
        "render",
        "model",
        "data",
        "perception",
        "media",
    },
}
"""Part -> the parts that it may import besides itself and BASE; docs/architecture.md has the same table."""
ALLOWED["cli"] = {*ALLOWED, "xdub_kernels"}

DOORS = {
    "ray": {
        "ray_session.py",
        "ray_machines.py",
        "data/ingest.py",
        "data/stream.py",
        "pool/",
        "submit/jobs.py",
        "train/context.py",
        "train/supervise/",
    },
    "deepspeed": {"train/engine.py", "train/deepspeed_setup.py"},
    "mlflow": {"tracking/"},
    "mediapipe": {"perception/"},
    "onnxruntime": {"perception/"},
    "insightface": {"perception/"},
    "moderngl": {"render/"},
    "av": {"media/"},
    "decord": {"media/"},
    "transformers": {"model/", "perception/", "masks/", "miniature/"},
    "diffusers": {"model/", "miniature/"},
    "peft": {"model/", "export/"},
    "typer": {"cli/", "cli.py"},
}
"""The only files or folders of xdub that import the package."""

HEAVY = "triton ray deepspeed mlflow mediapipe moderngl transformers diffusers av cv2 peft matplotlib".split()


def sources(*folders: str) -> list[Path]:
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


@cache
def imports(path: Path) -> tuple[tuple[str, int], ...]:
    """Modules that a file imports with line numbers: at its top, inside functions, and for type annotations."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text("utf-8"), str(path))):
        if isinstance(node, ast.Import):
            modules += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: imports are absolute"
            # `from xdub import media` imports xdub.media.
            modules += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return tuple(modules)


def module_name(path: Path) -> str:
    """`xdub.model.dit` of xdub/model/dit.py; the package of an `__init__.py`."""
    root = ROOT / "kernels" if path.is_relative_to(ROOT / "kernels") else ROOT
    return ".".join(path.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


@cache
def file_graph() -> dict[str, set[str]]:
    """Module -> the modules of ours that its file imports."""
    ours = {module_name(path): path for path in sources("xdub", "kernels/xdub_kernels", "perf")}
    graph = {}
    for name, path in ours.items():
        targets = {module if module in ours else module.rpartition(".")[0] for module, _ in imports(path)}
        graph[name] = {target for target in targets if target in ours and target != name}
    return graph


def shown(path: Path) -> str:
    return str(path.relative_to(ROOT / "xdub"))


def part_of(path: Path) -> str:
    return shown(path).split("/")[0].removesuffix(".py")


def violations() -> Iterator[str]:
    for path in sources("xdub"):
        part = part_of(path)
        allowed = BASE if part in BASE else BASE | {part} | ALLOWED.get(part, set())
        for module, line in imports(path):
            names = module.split(".")
            target = names[1] if names[0] == "xdub" and len(names) > 1 else names[0]
            ours = names[0] in ("xdub", "xdub_kernels")
            # The root holds nothing but the version.
            if part != "__init__" and ours and target not in allowed | {"xdub", "__version__"}:
                yield f"{path.relative_to(ROOT)}:{line}: {part} may not import {module}"
            if names[0] in ("ray_jobs", "perf", "tests", "cluster", "kernels"):
                yield f"{path.relative_to(ROOT)}:{line}: the library may not import {module}"


def test_every_part_of_xdub_has_a_place_in_the_graph():
    parts = {part_of(path) for path in sources("xdub")}
    assert parts - BASE - {"__init__"} == set(ALLOWED)


def test_the_document_has_the_same_table_of_imports():
    text = (ROOT / "docs/architecture.md").read_text("utf-8")
    text = text.partition("## Imports go one way")[2].partition("\n## ")[0]
    head, *rows = [line.strip("|").split("|") for line in text.splitlines() if line.startswith("|")]
    assert set(re.findall(r"`(\w+)`", head[1])) == BASE
    table: dict[str, set[str]] = {}
    for parts, targets in rows[1:]:
        # The kernels are a package of their own, with a test below.
        if parts.strip() == "`xdub_kernels`":
            continue
        everything = targets.strip() == "all of them"
        table |= {
            part: ALLOWED["cli"] - {"cli"} if everything else set(re.findall(r"`(\w+)`", targets))
            for part in re.findall(r"`(\w+)`", parts)
        }
    assert table == ALLOWED


def test_the_graph_has_no_cycle():
    order: list[str] = []
    while len(order) < len(ALLOWED):
        ready = [
            part
            for part, needs in ALLOWED.items()
            if part not in order and needs - {"xdub_kernels"} <= set(order)
        ]
        assert ready, f"cycle among {sorted(set(ALLOWED) - set(order))}"
        order += ready


def test_no_file_imports_itself_through_others():
    """Lazy imports and imports for annotations count."""
    graph = file_graph()
    assert len(graph) > 200
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail("a circle of imports: " + " -> ".join(error.args[1]))


def test_imports_follow_the_graph():
    assert "\n".join(violations()) == ""


@pytest.mark.parametrize("package", DOORS)
def test_a_heavy_package_is_imported_only_at_its_door(package):
    doors = tuple(DOORS[package])
    wrong = [
        f"xdub/{shown(path)}:{line}"
        for path in sources("xdub")
        for module, line in imports(path)
        if module.split(".")[0] == package and not shown(path).startswith(doors)
    ]
    assert not wrong, f"{package} may be imported in {doors} only, not in {wrong}"


def test_kernels_depend_on_torch_alone_and_on_triton_only_in_their_triton_files():
    for path in sources("kernels/xdub_kernels"):
        for module, line in imports(path):
            name = module.split(".")[0]
            is_allowed = name in sys.stdlib_module_names or name in ("torch", "xdub_kernels")
            in_triton_file = name == "triton" and "triton" in path.stem
            assert is_allowed or in_triton_file, f"{path.relative_to(ROOT)}:{line} imports {module}"


def test_references_do_not_import_the_kernels_they_check():
    for path in sources("kernels/xdub_kernels"):
        if path.name == "reference.py":
            assert not [module for module, _ in imports(path) if "triton" in module.lower()], path


def test_no_module_named_kernels_is_on_the_path():
    """An importable `kernels` of ours would be taken by transformers for the library of that name."""
    assert not (ROOT / "kernels/__init__.py").exists()
    spec = find_spec("kernels")
    namespace = spec is not None and spec.origin is None
    elsewhere = spec is not None and "site-packages" in str(spec.origin)
    assert spec is None or namespace or elsewhere


def test_tests_are_no_packages():
    assert not list((ROOT / "tests").rglob("__init__.py"))


def test_the_top_packages_are_found_and_nothing_else_is_installed_as_one():
    for name in ("xdub", "xdub_kernels"):
        spec = find_spec(name)
        assert spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader)
    for name in ("perf", "cluster", "ray_jobs", "tests"):
        spec = importlib.machinery.PathFinder.find_spec(name, [p for p in sys.path if "site-packages" in p])
        assert spec is None or spec.origin is None


@pytest.mark.parametrize(
    "statement",
    ["import xdub, xdub_kernels", "import xdub.cli", "import xdub.config, xdub.errors, xdub.headers"],
)
def test_importing_the_package_from_its_root_loads_nothing_heavy(statement):
    heavy = HEAVY if "xdub_kernels" in statement else [*HEAVY, "torch"]
    code = f"import sys; {statement}; print(*[m for m in {heavy} if m in sys.modules])"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []


def test_importing_any_module_changes_no_environment_and_no_working_directory():
    modules = [
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        for path in sources("xdub")
        if path.name != "__main__.py"
    ]
    code = (
        "import importlib, os, sys\n"
        "before = dict(os.environ), os.getcwd(), list(sys.path)\n"
        f"for name in {modules}: importlib.import_module(name)\n"
        "after = dict(os.environ), os.getcwd(), list(sys.path)\n"
        "changed = {k for k in before[0].keys() | after[0].keys() if before[0].get(k) != after[0].get(k)}\n"
        "changed.discard('LD_LIBRARY_PATH')  # OpenCV adds its own folder\n"
        f"loaded = [m for m in {HEAVY[:8]} if m in sys.modules]\n"
        "print(sorted(changed), before[1:] == after[1:], loaded)\n"
    )
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert run.stdout.strip() == "[] True []"
