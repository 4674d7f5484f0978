"""Command lines that fit the small networks that ship with the package: codec, mouth readout, SyncNet."""
