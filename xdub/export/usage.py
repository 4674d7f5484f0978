"""Python code that loads an export, for its model card. It runs in the folder of the export."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from xdub.perception.open_models.table import OPEN_MODELS
from xdub.perception.open_models.wan_files import ADDITIONS

PEFT = """
base = load_backbone({base!r})
model = PeftModel.from_pretrained(base, {folder!r})
"""
DIFFUSERS_LORA = """
pipeline = WanPipeline.from_pretrained({diffusers!r})
pipeline.load_lora_weights({folder!r}, weight_name={file!r})
"""
CONVERTED = """
# No repository has this base for diffusers, so it is converted once.
save_backbone(load_backbone({base!r}), "base-diffusers", layout="diffusers")
transformer = WanTransformer3DModel.from_pretrained("base-diffusers")
transformer.load_lora_adapter({folder!r}, weight_name={file!r}, prefix="transformer")
"""
COMFY = """
# Copy {path} to ComfyUI/models/loras and load it with the node LoraLoaderModelOnly.
state = load_file({path!r})
"""
DIFFUSERS = """
transformer = WanTransformer3DModel.from_pretrained(".")
"""
ADDED = """
# {path} holds layers that the class above does not have, such as the speech branch. This loads everything:
"""
WHOLE = """
# The same as one network of this project, with the adapter as a part of its weights:
"""
EDITOR = "EDITOR"
"""Word of the code for the folder of the editor under an expert, where the export does not hold it."""


@dataclass(frozen=True, kw_only=True)
class Loaded:
    """One adapter, or the whole network, that the code loads."""

    phase: str
    folder: str
    """Folder of the files below the export; "." for the export itself."""
    files: Sequence[str]
    """Names of the files in this folder."""
    base: str | None = None
    """Name or folder of an adapter's base for `load_backbone`; None: the user names it."""
    placeholder: str = EDITOR
    """Word for a base that the user names."""
    placeholder_meaning: str = "the folder of the editor's `merged` export"
    diffusers: str | None = None
    """Repository of the base for diffusers; None: there is none."""

    @property
    def weights(self) -> str:
        """Name of the first file of weights."""
        return next(name for name in self.files if name.endswith(".safetensors"))

    def path(self, file: str) -> str:
        """Return the path of a file below the export."""
        return file if self.folder == "." else f"{self.folder}/{file}"


def usage(form: str, loaded: Sequence[Loaded]) -> str:
    """Return the code that loads every adapter, or the network, of an export in a form."""
    blocks = [_block(form, each, named=len(loaded) > 1) for each in loaded]
    return "\n\n".join(["\n".join(_imports(form, loaded)), *blocks])


def _imports(form: str, loaded: Sequence[Loaded]) -> list[str]:
    lines = []
    if form == "diffusers" or (form == "diffusers-lora" and any(each.diffusers is None for each in loaded)):
        lines.append("from diffusers import WanTransformer3DModel")
    if form == "diffusers-lora" and any(each.diffusers is not None for each in loaded):
        lines.append("from diffusers import WanPipeline")
    if form == "peft":
        lines.append("from peft import PeftModel")
    if form == "comfy-lora":
        lines.append("from safetensors.torch import load_file")
    own = ["load_backbone"] if form != "diffusers" or ADDITIONS in loaded[0].files else []
    if form == "diffusers-lora" and any(each.diffusers is None for each in loaded):
        own.append("save_backbone")
    return sorted(lines) + ([f"from xdub.model import {', '.join(own)}"] if own else [])


def _block(form: str, loaded: Loaded, *, named: bool) -> str:
    """Return the code of one adapter or network, without imports."""
    if form == "merged":
        return 'model = load_backbone(".")'
    if form == "diffusers":
        return DIFFUSERS.strip() + (_network(loaded, "") if ADDITIONS in loaded.files else "")
    template = {"peft": PEFT, "comfy-lora": COMFY}.get(form)
    if template is None:
        template = CONVERTED if loaded.diffusers is None else DIFFUSERS_LORA
    text = template.format(
        base=loaded.base or loaded.placeholder,
        folder=loaded.folder,
        file=loaded.weights,
        path=loaded.path(loaded.weights),
        diffusers=loaded.diffusers,
    ).strip()
    lines = [f"# {loaded.phase}"] if named else []
    if any(model.role == loaded.base for model in OPEN_MODELS):
        lines.append(f"# `xdub weights fetch {loaded.base}` downloads the base.")
    if loaded.base is None:
        lines.append(f"# {loaded.placeholder} is {loaded.placeholder_meaning}.")
    argument = "" if loaded.base is not None else f", base={loaded.placeholder!r}"
    return "\n".join([*lines, text]) + _network(loaded, argument)


def _network(loaded: Loaded, base: str) -> str:
    """Return the code that loads everything as one network."""
    note = ADDED.format(path=loaded.path(ADDITIONS)) if ADDITIONS in loaded.files else WHOLE
    return f"{note.rstrip()}\nnetwork = load_backbone({loaded.folder!r}{base})"
