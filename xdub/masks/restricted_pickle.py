"""Reading of FLAME's pickle without executing any of its code.

A pickle may name any function to call. FLAME's names numpy's arrays, scipy's sparse matrices and chumpy's arrays alone.
Here the first are built by numpy, and the others are replaced by containers of their state, so neither scipy nor chumpy
is imported. Every other name is an error.
"""

from __future__ import annotations

import codecs
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy._core.multiarray import _reconstruct, scalar

from xdub.errors import UserError


class State:
    """State of an object whose class is not imported."""

    def __init__(self, *_: Any) -> None:
        self.values: dict[str, Any] = {}

    def __setstate__(self, state: Any) -> None:
        self.values = state if isinstance(state, dict) else {"x": state}


def _new_state(*_: Any) -> State:
    """Return an empty container in place of an object that `copyreg` would build."""
    return State()


NUMPY: dict[str, Any] = {
    "_reconstruct": _reconstruct,
    "scalar": scalar,
    "ndarray": np.ndarray,
    "dtype": np.dtype,
}
"""Names of numpy's modules that may be called."""
STATES = ("chumpy.", "scipy.sparse")
"""Beginnings of the modules whose classes become `State`."""


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Callable[..., Any]:
        """Return the function of a name, or a container; raise UnpicklingError for any other name."""
        if module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray") and name in NUMPY:
            return NUMPY[name]
        if module.startswith(STATES):
            return State
        if (module, name) in (("copy_reg", "_reconstructor"), ("copyreg", "_reconstructor")):
            return _new_state
        if (module, name) in (("__builtin__", "object"), ("builtins", "object")):
            return State
        if (module, name) == ("_codecs", "encode"):
            return codecs.encode
        raise pickle.UnpicklingError(f"it names {module}.{name}")


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """Return the numeric arrays of a pickled mapping by name; sparse matrices are dense.

    Raises:
        UserError: the file cannot be read, or names code that is not numpy's.
    """
    try:
        content = _Unpickler(io.BytesIO(Path(path).read_bytes()), encoding="latin1").load()
    # A damaged pickle raises nearly any error.
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a pickle of arrays ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds no mapping of arrays")
    arrays = {str(name): _array(value) for name, value in content.items()}
    return {name: array for name, array in arrays.items() if array is not None}


def _array(value: Any) -> np.ndarray | None:
    """Return the numbers of a value; None if it has none."""
    if isinstance(value, State):
        if "indptr" in value.values:
            return _dense(value.values)
        value = value.values.get("x")
    array = np.asarray(value) if isinstance(value, (np.ndarray, list, tuple)) else None
    return array if array is not None and array.dtype.kind in "fiu" else None


def _dense(state: dict[str, Any]) -> np.ndarray | None:
    """Return a compressed sparse column matrix as an array; None if its parts do not fit."""
    rows, columns = state.get("_shape", state.get("shape", (0, 0)))
    pointers, indices, data = (np.asarray(state[name]) for name in ("indptr", "indices", "data"))
    if len(pointers) != columns + 1 or len(indices) != len(data) or pointers[-1] != len(data):
        return None
    matrix = np.zeros((rows, columns))
    matrix[indices, np.repeat(np.arange(columns), np.diff(pointers))] = data
    return matrix
