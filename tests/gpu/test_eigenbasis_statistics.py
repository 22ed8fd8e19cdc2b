from tests.kernels.cuda.test_eigenbasis_statistics import *  # noqa: F403
