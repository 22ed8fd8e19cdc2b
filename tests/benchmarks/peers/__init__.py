"""Tests of the comparison of step costs."""
