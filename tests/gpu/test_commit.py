from tests.kernels.cuda.test_commit import *  # noqa: F403
