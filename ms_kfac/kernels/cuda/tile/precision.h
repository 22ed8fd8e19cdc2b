// Warp-level matrix multiply-accumulate in float32, or on tensor cores with operands rounded to TF32 or BF16.
// Accumulation is always in float32.
//
// A piece of the result is 16 x 8. With g = l / 4 and t = l % 4, lane l of the warp holds its elements (g, 2t),
// (g, 2t + 1), (g + 8, 2t) and (g + 8, 2t + 1), as in the PTX instruction mma.m16n8. Operands lie in shared memory by
// rows of kDepth, in the swizzled order of place().
#pragma once

#include <cuda_runtime.h>

#include <cstdint>

namespace ms_kfac {

enum class Precision { kFloat32, kTf32, kBfloat16 };

// Depth per call of multiply(): a multiple of the depth of the mma instructions.
constexpr int kDepth = 16;

// Index of an operand's element in shared memory. Groups of four depths are permuted (swizzled) by row. Rows that are a
// multiple of 8 apart have the same order. So a warp has no bank conflicts when it reads groups of four depths of eight
// adjacent rows, or two depths of eight adjacent rows or of four even ones. Nor has it any when it writes all depths of
// two rows, or four depths of eight rows. Writing two depths of 16 rows takes two passes. Tiles of 128 do so, except
// for operands that are loaded depth-first.
__host__ __device__ constexpr int place(int row, int depth) {
  return row * kDepth + ((depth / 4) ^ (row / 2 % 4)) * 4 + depth % 4;
}

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
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
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

// Rounds TF32 operands once, when they are written to shared memory. BF16 operands are packed later.
template <Precision kPrecision>
__device__ inline float rounded(float value) {
#if !defined(__CUDACC__) || (defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800)
  if constexpr (kPrecision == Precision::kTf32) return __uint_as_float(to_tf32(value));
#endif
  return value;
}

// A separate function, because nvcc's host compiler does not know intrinsics in templates.
__device__ inline uint32_t bits_of(float value) { return __float_as_uint(value); }

// Four depths of a row or column as a tensor-core fragment. TF32 was rounded when stored; BF16 is packed here.
template <Precision kPrecision>
struct Fragment {
  uint32_t x, y, z, w;

  __device__ Fragment() {}
  __device__ explicit Fragment(const float4& of)
      : x(bits_of(of.x)), y(bits_of(of.y)), z(bits_of(of.z)), w(bits_of(of.w)) {}
};

template <>
struct Fragment<Precision::kBfloat16> {
  uint32_t low, high;

  __device__ Fragment() {}
  __device__ explicit Fragment(const float4& of)
      : low(to_bfloat16_pair(of.x, of.y)), high(to_bfloat16_pair(of.z, of.w)) {}
};

// Multiplies one piece over kDepth. A lane's rows are g and g + 8.
template <Precision kPrecision>
__device__ inline void multiply_piece(float (&sum)[4], const Fragment<kPrecision>& a, const Fragment<kPrecision>& below,
                                      const Fragment<kPrecision>& b) {
  if constexpr (kPrecision == Precision::kTf32) {
    mma_tf32(sum, {a.x, below.x, a.y, below.y}, {b.x, b.y});
    mma_tf32(sum, {a.z, below.z, a.w, below.w}, {b.z, b.w});
  } else {
    mma_bfloat16(sum, {a.low, below.low, a.high, below.high}, {b.low, b.high});
  }
}

// sums[i][j] += left rows 16 i .. 16 i + 15 times right columns 8 j .. 8 j + 7, over kDepth. All lanes call it.
// Operands begin at a row that is a multiple of 8.
template <Precision kPrecision, int kRows, int kColumns>
__device__ inline void multiply(const float* left, const float* right, int lane, float (&sums)[kRows][kColumns][4]) {
  const int g = lane / 4, t = lane % 4;
#if defined(__CUDACC__) && defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 800
  constexpr Precision kUsed = Precision::kFloat32;
#else
  constexpr Precision kUsed = kPrecision;
#endif
  if constexpr (kUsed == Precision::kFloat32) {
    // Two depths at a time, to limit register use.
#pragma unroll 1
    for (int k = 0; k < kDepth; k += 2) {
      float2 a[kRows][2], b[kColumns][2];
      const auto* of_left = reinterpret_cast<const float2*>(left + place(g, k));
      const auto* of_right = reinterpret_cast<const float2*>(right + place(2 * t, k));
#pragma unroll
      for (int i = 0; i < kRows; ++i)
        for (int half = 0; half < 2; ++half) a[i][half] = of_left[(16 * i + 8 * half) * (kDepth / 2)];
#pragma unroll
      for (int j = 0; j < kColumns; ++j)
        for (int next = 0; next < 2; ++next) b[j][next] = of_right[(8 * j + next) * (kDepth / 2)];
#pragma unroll
      for (int i = 0; i < kRows; ++i)
#pragma unroll
        for (int j = 0; j < kColumns; ++j)
#pragma unroll
          for (int element = 0; element < 4; ++element) {
            float& sum = sums[i][j][element];
            sum = fmaf(a[i][element / 2].x, b[j][element % 2].x, sum);
            sum = fmaf(a[i][element / 2].y, b[j][element % 2].y, sum);
          }
    }
  } else {
    // Lane t holds depths 4t .. 4t + 3 of both operands instead of those that the instruction specifies. This is valid
    // because the order of a sum's terms is free.
    const auto* of_left = reinterpret_cast<const float4*>(left + place(g, 4 * t));
    const auto* of_right = reinterpret_cast<const float4*>(right + place(g, 4 * t));
    using Operand = Fragment<kUsed>;
    Operand b[kColumns];
#pragma unroll
    for (int j = 0; j < kColumns; ++j) b[j] = Operand(of_right[8 * j * (kDepth / 4)]);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const Operand a(of_left[16 * i * (kDepth / 4)]), below(of_left[(16 * i + 8) * (kDepth / 4)]);
#pragma unroll
      for (int j = 0; j < kColumns; ++j) multiply_piece<kUsed>(sums[i][j], a, below, b[j]);
    }
  }
}

}  // namespace ms_kfac
