"""Packages and dependencies. Tool settings (ruff, pytest, ty) are in pyproject.toml; exact pins in constraints.txt."""

import re
from pathlib import Path

from setuptools import find_packages, setup

ROOT = Path(__file__).parent
VERSION = re.search(r'^__version__ = "(.+)"$', (ROOT / "xdub/__init__.py").read_text("utf-8"), re.M).group(1)

setup(
    name="xdub",
    version=VERSION,
    description="Mask-free visual dubbing by self-bootstrapped diffusion transformers: train it, use it, measure it.",
    long_description=(ROOT / "README.md").read_text("utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.13",
    # `kernels/` holds the package `xdub_kernels` and is no package itself: an importable module named `kernels`
    # would be taken by transformers for the library of that name.
    packages=[
        *find_packages(include=["xdub", "xdub.*"]),
        *find_packages("kernels", include=["xdub_kernels*"]),
    ],
    package_dir={"xdub_kernels": "kernels/xdub_kernels"},
    # Every file that is not code: recipes, shipped weights with their card, tables.
    package_data={
        "xdub": [
            str(path.relative_to(ROOT / "xdub"))
            for path in (ROOT / "xdub").rglob("*")
            if path.is_file() and path.suffix not in (".py", ".pyc")
        ]
    },
    entry_points={"console_scripts": ["xdub=xdub.cli:main"]},
    install_requires=[
        "torch>=2.11",
        "numpy>=2.0",
        "scipy>=1.13",
        "einops>=0.8",
        "safetensors>=0.5",
        "pyarrow>=20",
        "pyyaml>=6",
        "av>=14",
        "opencv-python-headless>=4.11",
        "pillow>=11",
        "matplotlib>=3.10",
        "moderngl>=5.12",
        "typer>=0.15",
        "rich>=14",
        # The training tests pass with the oldest and the newest of these versions. Ray before 2.56 has no public way to
        # slow down Ray Data's scheduler (xdub/data/stream.py); where DeepSpeed keeps its fp32 weights is checked by
        # xdub/train/state/fragments.py.
        "ray[data,default,train]>=2.56,<=2.60.0",
        "deepspeed>=0.19.0,<=0.19.8",
        "mlflow>=3.17,<4",
        "peft>=0.21",
        "transformers>=5.23,<6",
        "diffusers>=0.42,<1",
        # What mediapipe imports. It is installed beside this package without its own requirements, which would
        # bring a second OpenCV and an audio device library: pip install --no-deps mediapipe==0.10.35
        "absl-py>=2.3",
        "flatbuffers>=25.9",
    ],
    extras_require={
        "gpu": ["triton>=3.6", "flash-attn>=2.8"],
        "faces": ["insightface>=2.1", "onnxruntime>=1.20"],
        "dev": [
            "pytest>=9",
            "pytest-xdist>=3.8",
            "hypothesis>=6.150",
            "moto[server]>=5.2",
            "triton>=3.6",
            "ruff==0.17.6",
            "ty==0.0.105",
            "pre-commit>=4",
        ],
    },
    classifiers=[
        "Programming Language :: Python :: 3.11",
        "Programming Language :: Python :: 3.12",
        "Topic :: Multimedia :: Video",
        "Topic :: Scientific/Engineering :: Artificial Intelligence",
    ],
)
