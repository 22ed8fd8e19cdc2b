"""Operators that stage the statistics of one batch."""
