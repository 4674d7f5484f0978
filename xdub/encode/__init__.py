"""`xdub encode`: the latents and speech features of all windows of a data set, computed once before training."""

from xdub.encode.encode import EncodeReport, encode_latents

__all__ = ["EncodeReport", "encode_latents"]
