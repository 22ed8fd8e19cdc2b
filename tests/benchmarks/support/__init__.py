"""Tests of the code that several benchmarks share."""
