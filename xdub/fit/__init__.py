"""Training of the small networks that the package ships: codec, mouth readout, SyncNet."""
