"""Tests of the shell launchers."""
