from tests.kernels.cuda.test_kronecker_statistics import *  # noqa: F403
