from tests.kernels.cuda.test_staging import *  # noqa: F403
