"""Print exact pins of all packages installed in this environment, valid on any machine (`make lock`)."""

from __future__ import annotations

from importlib.metadata import distributions

OWN = {"xdub", "pip"}
"""Packages that are not pinned."""
BY_TORCH = ("nvidia-", "cuda-")
"""Prefixes of packages whose exact versions torch's own requirements pin, by machine."""

pins = {}
for distribution in distributions():
    name = distribution.metadata["Name"].lower().replace("_", "-")
    if name not in OWN and not name.startswith(BY_TORCH):
        # A local suffix such as +cpu names the build, not the version.
        pins[name] = distribution.version.split("+")[0]

print("# Exact versions of every package that `make` installs. Written by `make lock`.")
for name, version in sorted(pins.items()):
    print(f"{name}=={version}")
