"""Operators that recompute what a block preconditions with."""
