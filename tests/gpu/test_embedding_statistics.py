from tests.kernels.cuda.test_embedding_statistics import *  # noqa: F403
