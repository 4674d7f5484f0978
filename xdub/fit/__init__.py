"""Command lines that fit the small networks that ship with the package: codec and mouth readout."""
