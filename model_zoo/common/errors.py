"""Usage errors: the commands print their message and exit with status 2."""

from __future__ import annotations


class UsageError(Exception):
    """A request that the command can't fulfil; the text is one sentence for the user."""


class RecipeError(UsageError):
    """A recipe has an unknown key or a value that is not accepted."""


class DataError(UsageError):
    """A data folder lacks a file, or a file does not match its format."""


class CheckpointError(UsageError):
    """A checkpoint is missing or belongs to another network."""
