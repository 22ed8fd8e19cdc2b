"""Checkpoints that a run goes on from: their files, how they are written, how a run is restored."""
