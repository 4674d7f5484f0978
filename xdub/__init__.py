"""X-Dub: mask-free visual dubbing by self-bootstrapped diffusion transformers. Importing it loads nothing heavy."""

__version__ = "0.1.0"
