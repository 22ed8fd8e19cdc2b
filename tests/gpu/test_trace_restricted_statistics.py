from tests.kernels.cuda.test_trace_restricted_statistics import *  # noqa: F403
