"""Second-order optimizers for MindSpore."""

from ms_kfac import kernels
from ms_kfac._version import __version__
from ms_kfac.optim import KFAC
from ms_kfac.refresh import FixedInterval, RefreshPolicy

__all__ = ["KFAC", "FixedInterval", "RefreshPolicy", "__version__", "kernels"]
