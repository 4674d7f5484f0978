"""Clips on disk and on their way to a training step: records, shards, masks, windows, streams."""
