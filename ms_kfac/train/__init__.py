"""Callbacks for mindspore.train.Model."""

from ms_kfac.train.progress import ProgressBar

__all__ = ["ProgressBar"]
