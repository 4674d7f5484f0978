"""The networks (paper 3, Fig. 3): backbone, conditioning, codec, audio encoder, LoRA experts."""
