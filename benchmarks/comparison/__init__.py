"""Compares optimizers by the clock, with equal tuning."""
