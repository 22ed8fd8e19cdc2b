from tests.kernels.cuda.test_sherman_morrison_statistics import *  # noqa: F403
