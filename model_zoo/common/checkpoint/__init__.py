"""Checkpoints: their files, writing them, and resuming a run from them."""
