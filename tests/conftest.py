"""All tests run as the commands do: no telemetry, no downloads, Ray and MLflow in their local profile."""

from __future__ import annotations

import os

from hypothesis import settings

from xdub.runtime_env import prepare_environment

# Before any test module imports Ray, MLflow or a hub library: they read their environment once.
prepare_environment()
os.environ["HF_HUB_OFFLINE"] = "1"

# A busy machine is no failure: time limits per example say nothing about the code.
settings.register_profile("xdub", deadline=None)
settings.load_profile("xdub")
