// Marks functions that run on the host and on a GPU.
#pragma once

#ifdef __CUDACC__
#define MS_KFAC_HOST_DEVICE __host__ __device__
#else
#define MS_KFAC_HOST_DEVICE
#endif
