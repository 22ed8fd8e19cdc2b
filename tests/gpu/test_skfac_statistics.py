from tests.kernels.cuda.test_skfac_statistics import *  # noqa: F403
