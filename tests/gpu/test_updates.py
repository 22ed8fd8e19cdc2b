from tests.kernels.cuda.test_updates import *  # noqa: F403
