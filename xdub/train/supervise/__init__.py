"""Supervision of a phase: launch, failures, cluster watch, watchdog, checks before the start."""
