"""Print exact pins of all that is installed in this environment, fit for any machine (`make lock`)."""

from __future__ import annotations

from importlib.metadata import distributions

OWN = {"xdub", "pip"}
# Chosen by torch for the machine: its requirements name the exact versions.
BY_TORCH = ("nvidia-", "cuda-")

pins = {}
for distribution in distributions():
    name = distribution.metadata["Name"].lower().replace("_", "-")
    if name not in OWN and not name.startswith(BY_TORCH):
        pins[name] = distribution.version.split("+")[
            0
        ]  # a local suffix such as +cpu says which build, not which version

print("# Exact versions of every package that `make` installs. Written by `make lock`.")
for name, version in sorted(pins.items()):
    print(f"{name}=={version}")
