from tests.kernels.cuda.test_lag_products import *  # noqa: F403
