// How a warp multiplies small pieces of two matrices: in float32, or on tensor cores with operands rounded to TF32 or
// BF16. Sums are float32 in all.
//
// A piece of the result is 16 x 8. Lane l of the warp holds its elements (g, 2t), (g, 2t + 1), (g + 8, 2t) and
// (g + 8, 2t + 1) with g = l / 4 and t = l % 4, as the instruction mma.m16n8 has it. Operands lie in shared memory with
// the depth contiguous: row i of the left one at left[i * stride], column j of the right one at right[j * stride].
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace ms_kfac {

enum class Precision { kFloat32, kTf32, kBfloat16 };

// Depth that multiply() takes at a time: a multiple of what the instructions take.
constexpr int kDepth = 16;

struct LaneInPiece {
  int row, column;

  __device__ static LaneInPiece of(int lane) { return {lane / 4, 2 * (lane % 4)}; }
};

#ifdef __CUDACC__

__device__ inline uint32_t to_tf32(float value) {
  uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(value));
  return bits;
}

__device__ inline uint32_t to_bfloat16_pair(float low, float high) {
  uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(high), "f"(low));
  return bits;
}

__device__ inline void mma_tf32(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
  asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
               : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

__device__ inline void mma_bfloat16(float (&sum)[4], const uint32_t (&left)[4], const uint32_t (&right)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
      : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
      : "r"(left[0]), "r"(left[1]), "r"(left[2]), "r"(left[3]), "r"(right[0]), "r"(right[1]));
}

#else
#include "tensor_cores.h"
#endif

// sums[i][j] += left rows 16 i .. 16 i + 15 times right columns 8 j .. 8 j + 7, over kDepth. All lanes call it.
template <Precision kPrecision, int kRows, int kColumns>
__device__ inline void multiply(const float* left, const float* right, int stride, int lane,
                                float (&sums)[kRows][kColumns][4]) {
  const int g = lane / 4, t = lane % 4;
#if defined(__CUDACC__) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  constexpr Precision kUsed = Precision::kFloat32;
#else
  constexpr Precision kUsed = kPrecision;
#endif
  if constexpr (kUsed == Precision::kFloat32) {
#pragma unroll
    for (int k = 0; k < kDepth; ++k) {
      float a[kRows][2], b[kColumns][2];
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        for (int half = 0; half < 2; ++half) a[i][half] = left[(16 * i + 8 * half + g) * stride + k];
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
        for (int next = 0; next < 2; ++next) b[j][next] = right[(8 * j + 2 * t + next) * stride + k];
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
#pragma unroll
          for (int element = 0; element < 4; ++element)
            sums[i][j][element] = fmaf(a[i][element / 2], b[j][element % 2], sums[i][j][element]);
    }
  } else if constexpr (kUsed == Precision::kTf32) {
#pragma unroll
    for (int k = 0; k < kDepth; k += 8) {
      uint32_t a[kRows][4], b[kColumns][2];
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int element = 0; element < 4; ++element)
          a[i][element] = to_tf32(left[(16 * i + 8 * (element % 2) + g) * stride + k + t + 4 * (element / 2)]);
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
#pragma unroll
        for (int element = 0; element < 2; ++element)
          b[j][element] = to_tf32(right[(8 * j + g) * stride + k + t + 4 * element]);
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int j = 0; j < kColumns; ++j) mma_tf32(sums[i][j], a[i], b[j]);
    }
  } else {
    uint32_t a[kRows][4], b[kColumns][2];
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int element = 0; element < 4; ++element) {
        const float* from = left + (16 * i + 8 * (element % 2) + g) * stride + 2 * t + 8 * (element / 2);
        a[i][element] = to_bfloat16_pair(from[0], from[1]);
      }
#pragma unroll
    for (int j = 0; j < kColumns; ++j)
#pragma unroll
      for (int element = 0; element < 2; ++element) {
        const float* from = right + (8 * j + g) * stride + 2 * t + 8 * element;
        b[j][element] = to_bfloat16_pair(from[0], from[1]);
      }
#pragma unroll
    for (int i = 0; i < kRows; ++i)
#pragma unroll
      for (int j = 0; j < kColumns; ++j) mma_bfloat16(sums[i][j], a[i], b[j]);
  }
}

}  // namespace ms_kfac
