from tests.kernels.cuda.test_many_blocks import *  # noqa: F403
