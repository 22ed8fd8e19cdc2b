"""Compares the methods on the zoo's transformers, with equal tuning and by the clock."""
