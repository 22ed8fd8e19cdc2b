from tests.kernels.cuda.test_capture_check import *  # noqa: F403
