"""Benchmark commands; each prints ratios measured within one run."""
