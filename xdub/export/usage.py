"""Python code that loads an export, for its model card."""

from __future__ import annotations

from collections.abc import Sequence

from xdub.config import expert_of
from xdub.export.source import Part

PEFT = """
from peft import PeftModel
from xdub.model import load_backbone

# A folder of the base: `xdub weights fetch` downloads open models; EDITOR is the `merged` export of the editor.
base = load_backbone({base!r})
model = PeftModel.from_pretrained(base, "."{subfolder})
"""
DIFFUSERS_LORA = """
from diffusers import WanPipeline

pipeline = WanPipeline.from_pretrained({base!r})
pipeline.load_lora_weights(".", weight_name={file!r})
"""
COMFY = """
# Copy {file} to ComfyUI/models/loras and load it with the node LoraLoaderModelOnly.
from safetensors.torch import load_file

state = load_file({file!r})
"""
DIFFUSERS = """
from diffusers import WanTransformer3DModel

transformer = WanTransformer3DModel.from_pretrained(".")
"""
MERGED = """
from xdub.model import load_backbone

model = load_backbone(".")
"""
ADDITIONS = """
# additions.safetensors holds the layers that plain Wan does not have, such as the speech branch. The code above does
# not load them; the form `merged` is a whole network with them.
"""


def usage(form: str, parts: Sequence[Part], files: Sequence[str], base: str | None) -> str:
    """Return the code that loads the files of a form on top of a base (hub name)."""
    weights = next(name for name in files if name.endswith(".safetensors"))
    subfolder = f", subfolder={parts[0].phase!r}" if len(parts) > 1 else ""
    template = {
        "peft": PEFT,
        "diffusers-lora": DIFFUSERS_LORA,
        "comfy-lora": COMFY,
        "diffusers": DIFFUSERS,
        "merged": MERGED,
    }[form]
    name = base or "BASE"
    if expert_of(parts[0].phase) is not None:
        # An expert changes the trained editor, not the weights that the editor started from.
        name = "EDITOR"
    elif form == "diffusers-lora":
        name = f"{name}-Diffusers"
    text = template.format(base=name, subfolder=subfolder, file=weights)
    return text + (ADDITIONS if any(name.endswith("additions.safetensors") for name in files) else "")
