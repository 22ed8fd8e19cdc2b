"""Errors that the commands print as one sentence instead of a traceback."""

from __future__ import annotations


class UsageError(Exception):
    """A request that the command can't fulfil; the text is one sentence for the user. Exit status 2."""


class RecipeError(UsageError):
    """A recipe has an unknown key or a value that is not accepted."""


class DataError(UsageError):
    """A data folder lacks a file, or a file does not match its format."""


class CheckpointError(UsageError):
    """A checkpoint is missing or damaged, or belongs to another network."""


class NoCheckpointError(CheckpointError):
    """A run has not finished a checkpoint yet."""


class RunFailedError(Exception):
    """A training that had begun could not go on; the text is one sentence for the user. Exit status 1."""


class Interrupted(BaseException):
    """A signal ended the command. Not an Exception, so that no library takes it for an error of its own.

    Args:
        signum: the signal; the exit status is 128 more.
        sentence: what the user is told.
    """

    def __init__(self, signum: int, sentence: str) -> None:
        """Stores the arguments."""
        super().__init__(sentence)
        self.signum = signum
