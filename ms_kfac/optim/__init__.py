"""The optimizers: one base with the step, one thin file a method. This list is the registry of methods."""

from ms_kfac.optim.kfac import KFAC

__all__ = ["KFAC"]
