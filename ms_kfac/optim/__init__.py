"""The optimizers."""

from ms_kfac.optim.ekfac import EKFAC
from ms_kfac.optim.kfac import KFAC
from ms_kfac.optim.skfac import SKFAC
from ms_kfac.optim.smkfac import SMKFAC
from ms_kfac.optim.spngd import SPNGD
from ms_kfac.optim.thor import THOR
from ms_kfac.optim.tkfac import TKFAC

__all__ = ["EKFAC", "KFAC", "SKFAC", "SMKFAC", "SPNGD", "THOR", "TKFAC"]
