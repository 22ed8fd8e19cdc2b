"""Data sets as arrays, and the pipelines that batch and augment them."""
