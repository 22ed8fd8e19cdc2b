from tests.kernels.cuda.test_damped_inverse import *  # noqa: F403
