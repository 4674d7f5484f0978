"""Shipped recipes: numbers live here, meaning lives in the code."""
