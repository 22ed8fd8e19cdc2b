from tests.kernels.cuda.test_refreshes import *  # noqa: F403
