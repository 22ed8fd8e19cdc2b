// The random signs of the check that a layer's statistics belong to its gradient (ms_kfac/ops/statistics/signs.py).
//
// For a weight gradient dW with rows (axis 0), columns (axis 1) and taps (all further axes, flattened):
//
//   r^T dW s = sum_{o, c, k} sign(kRows, o) sign(kColumns, c) sign(kTaps, k) dW[o, c, k] + sum_o sign(kRows, o) db[o].
#pragma once

#include <cstdint>

#include "host_device.h"

namespace ms_kfac {

enum SignAxis : uint32_t { kRows = 1, kColumns = 2, kTaps = 3 };

// +1 or -1, from the lowest bit of MurmurHash3's finalizer. It hashes the index mixed with its axis.
MS_KFAC_HOST_DEVICE inline float sign(SignAxis axis, uint32_t index) {
  uint32_t hash = index * 0x9E3779B1u + axis * 0x85EBCA6Bu;
  hash ^= hash >> 16;
  hash *= 0x85EBCA6Bu;
  hash ^= hash >> 13;
  hash *= 0xC2B2AE35u;
  hash ^= hash >> 16;
  return hash & 1u ? -1.0f : 1.0f;
}

}  // namespace ms_kfac
