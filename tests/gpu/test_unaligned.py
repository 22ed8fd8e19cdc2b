from tests.kernels.cuda.test_unaligned import *  # noqa: F403
