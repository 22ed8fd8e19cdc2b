"""Errors that are the user's to mend: the commands print their one sentence and leave with exit status 2."""

from __future__ import annotations


class UsageError(Exception):
    """The command was asked for something that it can't do; its text is one sentence for the user."""


class RecipeError(UsageError):
    """A recipe holds an unknown key or a value that is not accepted."""


class DataError(UsageError):
    """A data folder lacks a file, or a file is not what its format says."""


class CheckpointError(UsageError):
    """A checkpoint is missing or belongs to another network."""
