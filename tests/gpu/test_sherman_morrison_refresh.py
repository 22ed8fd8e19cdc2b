from tests.kernels.cuda.test_sherman_morrison_refresh import *  # noqa: F403
