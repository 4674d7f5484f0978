"""Loading of third-party networks from files and folders, which may be damaged or of another network.

A library fills weights that a file lacks with random numbers, and NaN weights only show in the results. Both are errors
here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from xdub.errors import UserError, error_reason, loading_pretrained


def load_pretrained(
    kind: Any,
    setting: str,
    path: str | Path,
    *,
    part: str = "",
    unused: tuple[str, ...] = (),
    dtype: torch.dtype = torch.float32,
    **arguments: Any,
) -> Any:
    """Load a model of diffusers or transformers from a folder or hub name, by default in fp32 (`xdub.precision`).

    Many releases store fp16, in which transformers would compute, too.

    Args:
        kind: class with `from_pretrained`.
        setting: recipe key for messages.
        part: beginning of the names of the weights that are used; other weights may be missing.
        unused: names of weights of the part that may be missing, too.
        dtype: type of the weights in memory.

    Raises:
        UserError: the model cannot be loaded, or weights of the part are missing or not finite.
    """
    with loading_pretrained(setting, path):
        if dtype != torch.float32:
            # Another type halves the memory of the largest models already while they are loaded.
            arguments["dtype"] = dtype
        model, info = kind.from_pretrained(path, output_loading_info=True, **arguments)
    missing = sorted(name for name in info["missing_keys"] if name.startswith(part) and name not in unused)
    if missing:
        raise UserError(
            f"{setting}={path}: the files lack {len(missing)} of the weights of {kind.__name__}, such as "
            f"{missing[0]}; copy or download the model again, or name another one"
        )
    check_finite(path, ((name, value) for name, value in model.state_dict().items() if name.startswith(part)))
    return model.to(dtype)


def read_state_dict(path: str | Path, title: str) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file or of a state dict that torch saved; only tensors are unpickled.

    Raise UserError (not ``title``) for any other content, and for values that are not finite.
    """
    try:
        state = _read(path)
    # The readers raise nearly any error for damaged or foreign files.
    except Exception as error:
        raise UserError(f"{path}: not {title}: cannot be read as weights ({error_reason(error)})") from error
    if not is_state_dict(state):
        raise UserError(f"{path}: not {title}: no state dict of tensors")
    check_finite(path, state.items())
    return dict(state)


def is_state_dict(state: object) -> bool:
    """Return whether the content of a file is a mapping from names to dense tensors with values."""
    return isinstance(state, Mapping) and all(
        isinstance(name, str)
        and isinstance(value, Tensor)
        and value.layout is torch.strided
        and not value.is_complex()
        and not value.is_meta
        # A file of a few bytes may hold a view of any size, which no arithmetic could store.
        and value.untyped_storage().nbytes() >= value.numel() * value.element_size()
        for name, value in state.items()
    )


def check_finite(path: str | Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Raise UserError with the first tensor that has NaN or infinite values."""
    for name, value in tensors:
        if value.is_floating_point() and not bool(torch.isfinite(value).all()):
            raise UserError(
                f"{path}: the weights {name} have values that are not finite; copy or download the file again"
            )


def load_weights(network: nn.Module, state: Mapping[str, Tensor], path: str | Path, title: str) -> None:
    """Load a state dict strictly. Raise UserError with the first difference of names or shapes."""
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        reason = str(error).splitlines()[1:2] or [str(error)]
        raise UserError(f"{path}: not {title} ({reason[0].strip()})") from error


def shapes_differ(kind: Callable[[], nn.Module], state: Mapping[str, Tensor]) -> bool:
    """Return whether a network has other weights than a state dict; nothing is allocated for the network."""
    with torch.device("meta"):
        expected = kind().state_dict()
    return {name: value.shape for name, value in expected.items()} != {
        name: value.shape for name, value in state.items()
    }


def _read(path: str | Path) -> Any:
    """Return the content of a file, recognised by its header, because users rename files."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError:
        if Path(path).suffix == ".safetensors":
            raise
    return torch.load(path, map_location="cpu", weights_only=True)
