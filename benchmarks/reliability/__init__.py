"""Breaks training on purpose and counts what holds."""
