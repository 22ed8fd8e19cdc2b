from tests.kernels.cuda.test_streams import *  # noqa: F403
