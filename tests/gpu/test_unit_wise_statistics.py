from tests.kernels.cuda.test_unit_wise_statistics import *  # noqa: F403
