"""Copies of a phase on another file system: upload and restore."""
