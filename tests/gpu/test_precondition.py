from tests.kernels.cuda.test_precondition import *  # noqa: F403
