"""Checks of real footage: one module a check, each with a value, a threshold and a row."""
